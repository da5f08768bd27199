"""Byte reading: a model's distribution over the next byte of a text, whatever its tokenizer.

The probability of a byte is that of all next tokens that begin with it. Within a token a text may continue in two ways:
with the rest of a longer token, or with a new token after this one has ended. Both count; the second needs the model's
output after the ended token. Once a byte has decided between the two, the likelier one is kept. So every step is a
distribution that sums to one, and texts get likelihoods by which models with different tokenizers can be compared and
mixed (cf. Vieira et al. 2024, From Language Models over Tokens to Language Models over Characters, arXiv 2412.03719;
this is their search with a single hypothesis).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.inference.continuation import Rows
from calmctl.inference.decoding import NotFiniteError
from calmctl.inference.growing_cache import growing_cache
from calmctl.modeling.calling import accepts, cache_argument, cache_of
from calmctl.modeling.context import context_length
from calmctl.modeling.probe import agree, probe_ids, tolerance
from calmctl.modeling.tokenizers.token_bytes import ByteVocabulary

# The symbol after the 256 bytes: the end of the text.
END = 256
# Share of every distribution that is spread evenly, so that no symbol is impossible.
FLOOR = 1e-6
# A token less likely than this to have ended counts as part of a longer one, without a run of the model.
LEAST_END = 1e-6
# Columns that the cache may have beyond the longest row's tokens before it is compacted.
MOST_HOLES = 8

Chances = NDArray[np.float64]


@dataclass
class _Row:
    """One text.

    Attributes:
        begun: bytes after the last whole token.
        after: (n,) probabilities of the next token (in the vocabulary's order) after the last whole token, and the
            probability that the text ends there.
        beyond: the same after `begun`, if that is a token; None if it is none or too unlikely.
        ways: (2, 257) probabilities of the next symbol inside the begun token, and after its end.
        token: the token that `begun` is; `share`: its probability among all tokens that begin with `begun`.
        tokens: whole tokens after those of the prompt that were read as they are.
        number: index of the prompt.
        num_healed: tokens of the prompt that are written again: the last one, as the next bytes may belong to it.
    """

    begun: bytes
    after: tuple[NDArray[np.float32], float]
    beyond: tuple[NDArray[np.float32], float] | None = None
    ways: Chances = field(default_factory=lambda: np.empty(0))
    token: int = -1
    share: float = 0.0
    tokens: list[int] = field(default_factory=list)
    number: int = 0
    num_healed: int = 0


class ByteReader:
    """Continues a batch of prompts byte by byte.

    Args:
        prompts: the token ids of each.

    Raises:
        UserError: a text exceeds the model's context.
        NotFiniteError: the logits after a prompt are NaN or infinite.
    """

    @torch.inference_mode()
    def __init__(
        self, model: PreTrainedModel, vocabulary: ByteVocabulary, prompts: Sequence[Sequence[int]], pad_id: int
    ) -> None:
        self.model, self.vocabulary, self.pad_id = model, vocabulary, pad_id
        self._longest, self._ids = context_length(model), vocabulary.ids.to(model.device)
        # Token healing: the next bytes may belong to a longer token than the prompt's last one.
        healed = [len(ids) > 1 and bool(vocabulary.text(ids[-1])) for ids in prompts]
        known = [list(ids[:-1]) if heal else list(ids) for ids, heal in zip(prompts, healed, strict=True)]
        rows = Rows(known, pad_id, model.device)
        # A growing cache holds every token, so a sliding window is applied by the mask alone.
        self._mask, self._cache = rows.attention_mask, growing_cache(model)
        nothing = np.empty(0, np.float32), 0.0
        self._rows = [_Row(b"", nothing, number=number) for number in range(len(prompts))]
        for row, ids, heal, answer in zip(self._rows, prompts, healed, self._read(rows.input_ids), strict=True):
            row.after = answer
            if heal:
                row.begun, row.token, row.num_healed = vocabulary.text(ids[-1]), ids[-1], 1
        self._look_beyond()

    @property
    def num_tokens(self) -> list[int]:
        """Return the number of whole tokens of each text after its prompt."""
        return [max(len(row.tokens) - row.num_healed, 0) for row in self._rows]

    @property
    def num_begun(self) -> list[int]:
        """Return the number of bytes after the last whole token of each text."""
        return [len(row.begun) for row in self._rows]

    def chances(self) -> Chances:
        """Return (rows, 257) the probability of each next byte, and of the end of the text."""
        return np.stack([self._of(row) for row in self._rows])

    @torch.inference_mode()
    def take(self, symbols: Sequence[int]) -> None:
        """Append one byte to each row."""
        torn: list[tuple[int, list[int]]] = []
        for place, (row, byte) in enumerate(zip(self._rows, symbols, strict=True)):
            goes_on, ended = row.ways
            if ended[byte] > goes_on[byte] and row.beyond is not None:
                row.after, row.begun = row.beyond, b""
                row.tokens.append(row.token)
            else:
                if row.beyond is not None:
                    self._mask[place, self._column(place)] = 0  # it has not ended: mask it
                if goes_on[byte] <= 0 and row.begun:
                    torn.append((place, self.vocabulary.cut(row.begun)))
                    row.begun = b""
            row.beyond, row.token = None, -1
            row.begun += bytes([byte])
        while torn:
            tokens = dict((place, ids.pop(0)) for place, ids in torn)
            for place, answer in self._append(tokens).items():
                self._rows[place].after = answer
                self._rows[place].tokens.append(tokens[place])
            torn = [(place, ids) for place, ids in torn if ids]
        self._move_together()
        self._look_beyond()

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but these."""
        self._rows = [self._rows[place] for place in places]
        kept = torch.tensor(places, device=self._mask.device)
        self._mask = self._mask[kept]
        self._cache.batch_select_indices(kept)

    def _move_together(self) -> None:
        """Compact the cache: move each row's masked columns to the left, and drop those masked in every row."""
        width = int(self._mask.sum(-1).max())
        if self._mask.shape[1] - width <= MOST_HOLES:
            return
        order = self._mask.argsort(dim=1, stable=True)[:, -width:]
        self._mask = self._mask.gather(1, order)
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                places = order.to(held.device)[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                setattr(layer, name, held.gather(2, places))

    def _of(self, row: _Row) -> Chances:
        found = row.ways.sum(0)
        total = found.sum()
        found = found / total if total > 0 else np.full_like(found, 1 / len(found))
        return cast(Chances, (1 - FLOOR) * found + FLOOR / len(found))

    def _ways(self, row: _Row) -> Chances:
        goes_on = np.append(self._sums(row.after[0], row.begun), 0.0 if row.begun else row.after[1])
        ended = np.zeros_like(goes_on)
        if row.beyond is not None:
            ended = row.share * np.append(self._sums(row.beyond[0], b""), row.beyond[1])
            goes_on = goes_on / max(self._all(row), np.finfo(float).tiny)
        return np.stack([goes_on, ended])

    def _sums(self, chances: NDArray[np.float32], begun: bytes) -> Chances:
        """Return (256,) the total probability of the tokens that begin with `begun` and each next byte."""
        borders = self.vocabulary.borders(begun)
        places = np.flatnonzero(np.diff(borders[1:]))  # reduceat does not return 0 for empty ranges
        sums = np.zeros(256)
        if len(places):
            sums[places] = np.add.reduceat(chances[: borders[-1]], borders[1:-1][places], dtype=np.float64)
        return sums

    def _all(self, row: _Row) -> float:
        borders = self.vocabulary.borders(row.begun)
        return float(row.after[0][borders[0] : borders[-1]].sum(dtype=np.float64))

    def _look_beyond(self) -> None:
        """Run the model on the rows whose begun bytes may be a whole token, and update the rows' `ways`."""
        tokens = {}
        for place, row in enumerate(self._rows):
            borders = self.vocabulary.borders(row.begun)
            same = row.after[0][borders[0] : borders[1]] if row.begun else row.after[0][:0]
            total = self._all(row) if len(same) else 0.0
            share = float(same.sum(dtype=np.float64)) / total if total > 0 else 0.0
            if share >= LEAST_END:
                if row.token < 0:  # the prompt's last token is known
                    row.token = int(self.vocabulary.ids[borders[0] + int(same.argmax())])
                tokens[place], row.share = row.token, share
        for place, answer in self._append(tokens).items():
            self._rows[place].beyond = answer
        for row in self._rows:
            row.ways = self._ways(row)

    def _append(self, tokens: dict[int, int]) -> dict[int, tuple[NDArray[np.float32], float]]:
        """Read one more token in some rows (padding in the others), and return what follows it."""
        if not tokens:
            return {}
        column = torch.full((len(self._rows), 1), self.pad_id, device=self._mask.device)
        seen = torch.zeros_like(column)
        for place, token in tokens.items():
            column[place], seen[place] = token, 1
        self._mask = torch.cat([self._mask, seen.to(self._mask.dtype)], dim=1)
        answers = self._read(column)
        return {place: answers[place] for place in tokens}

    def _column(self, place: int) -> int:
        """Return the column of a row's newest token."""
        return int(self._mask[place].nonzero()[-1])

    def _read(self, input_ids: Tensor) -> list[tuple[NDArray[np.float32], float]]:
        """Read new tokens (rows, seq), and return each row's probabilities of the next token and of the end."""
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        if self._longest and int(positions.max()) >= self._longest:
            raise UserError(
                f"mix: {type(self.model).__name__} reads {self._longest} tokens at most, and a text has more of them; "
                "set decoding.max_new_tokens lower, or leave long records out"
            )
        arguments: dict[str, Any] = {"logits_to_keep": 1} if accepts(self.model, "logits_to_keep") else {}
        arguments |= {cast(str, cache_argument(self.model)): self._cache, "use_cache": True}
        output = self.model(input_ids=input_ids, attention_mask=self._mask, position_ids=positions, **arguments)
        self._cache = cache_of(output) or self._cache
        chances = output.logits[:, -1].float().softmax(-1)
        bad = ~chances.isfinite().all(-1) & self._mask[:, -1].bool().to(chances.device)
        if bad.any():
            raise NotFiniteError(self.model, "logits", self._rows[int(bad.nonzero()[0])].number)
        texts = chances[:, self._ids.to(chances.device)].cpu().numpy()
        ends = chances[:, self.vocabulary.end_ids].sum(-1).tolist()
        return list(zip(texts, ends, strict=True))


@torch.inference_mode()
def passes_over(model: PreTrainedModel) -> bool:
    """Tell whether masking a token that a model has read undoes its effect; tested on a few tokens."""
    ids, wrong = probe_ids([model], 1, 8), probe_ids([model], 1, 1, seed=1)
    mask = torch.ones(1, 9, dtype=torch.long, device=ids.device)
    mask[0, 5] = 0
    stretches = [(0, 5, ids[:, :5]), (5, 6, wrong), *((end - 1, end, ids[:, end - 2 : end - 1]) for end in (7, 8, 9))]

    def passing_over() -> Tensor:
        cache, found = growing_cache(model), []
        for begin, end, given in stretches:
            seen = mask[:, :end].clone()
            seen[:, begin:] = 1
            output = model(
                input_ids=given,
                attention_mask=seen,
                position_ids=(seen.cumsum(-1) - 1)[:, begin:],
                use_cache=True,
                **{cast(str, cache_argument(model)): cache},
            )
            found.append(output.logits[:, -1:])
        return torch.cat(found[2:], dim=1)

    return agree(passing_over, model(input_ids=ids).logits[:, 5:], tolerance([model]))
