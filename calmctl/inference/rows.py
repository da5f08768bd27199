"""Rows: prompts padded to one width, with what has been generated after them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from calmctl.modeling.calling import CACHE, accepts


class Rows:
    """A batch that is being continued.

    Attributes:
        input_ids: (rows, seq), what is generated included.
        attention_mask: (rows, seq); 0 on padding, which stands on the left, behind what the cache begins with.
        cache: of the tokens that have been read; None = the model makes its own.
        width: tokens of the padded prompts.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, cache: Cache | None = None
    ) -> None:
        self.cache, self.width = cache, max(map(len, prompts))
        read = cache.get_seq_length() if cache is not None else 0
        input_ids = torch.full((len(prompts), self.width), pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            ids, rest = torch.tensor(prompt), self.width - len(prompt) + read
            input_ids[row, :read], input_ids[row, rest:] = ids[:read], ids[read:]
            attention_mask[row, :read], attention_mask[row, rest:] = 1, 1
        self.input_ids, self.attention_mask = input_ids.to(device), attention_mask.to(device)

    def arguments(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return what `generate` of a model is called with to continue the rows."""
        mask = {"attention_mask": self.attention_mask} if accepts(model, "attention_mask") else {}
        return {"input_ids": self.input_ids, **mask, CACHE: self.cache}

    @property
    def num_new(self) -> int:
        """Return how many tokens have been generated in each row."""
        return self.input_ids.shape[1] - self.width

    def extend(self, sequences: Tensor, cache: Cache | None) -> None:
        """Take what the model returned: the rows (rows, longer seq), and the cache of all but the newest token."""
        self.attention_mask = F.pad(self.attention_mask, (0, sequences.shape[1] - self.input_ids.shape[1]), value=1)
        self.input_ids, self.cache = sequences, cache

    def keep(self, places: Sequence[int]) -> None:
        """Leave out all rows but these."""
        kept = torch.tensor(places, device=self.input_ids.device)
        self.input_ids, self.attention_mask = self.input_ids[kept], self.attention_mask[kept]
        if self.cache is not None:
            self.cache.batch_select_indices(kept)
