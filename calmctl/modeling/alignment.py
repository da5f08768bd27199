"""Alignment: which aug positions an anchor position may attend to.

Bridges do not assume that both models read the same tokens: they are given the number of visible aug positions per
anchor position. With one tokenizer these are all positions up to and including its own. For augs with their own
tokenizer see `tokenizers/aug_tokens.py`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from calmctl.errors import UserError
from calmctl.modeling.loss import IGNORED


def same_tokenizer_visible(
    batch_size: int, past: int, length: int, device: torch.device, prompt_lengths: Tensor | None = None
) -> Tensor:
    """Return visible counts (batch, length) for models that read the same tokens: position t sees t + 1.

    Args:
        past: number of tokens already in the cache.
        length: number of new tokens.
        prompt_lengths: (batch,) upper limit of the counts, for an aug that reads prompts only.
    """
    visible = torch.arange(past + 1, past + length + 1, device=device).expand(batch_size, length)
    return visible if prompt_lengths is None else visible.minimum(prompt_lengths[:, None])


def prompts_before(labels: Tensor) -> Tensor:
    """Return the prompt lengths (batch,) of rows with labels (batch, seq): a prompt ends before its first label."""
    labelled = labels != IGNORED
    return torch.where(labelled.any(-1), labelled.int().argmax(-1), labels.shape[1])


def prompt_to_read(
    prompt_lengths: Tensor | None, batch_size: int, past: int, length: int, read: int
) -> tuple[Tensor, int]:
    """Return the prompt lengths (batch,), and how many of `length` new tokens an aug that reads prompts only reads.

    Args:
        prompt_lengths: (batch,); None = the prompt is the whole first input.
        past: number of tokens in the cache; `read`: how many of them such augs have read.

    Raises:
        UserError: the prompt continues after tokens that the augs did not read.
    """
    if prompt_lengths is None:
        prompt_lengths = torch.full((batch_size,), read if past else length)
    # Attention needs at least one key; the prompt lengths decide whether it is visible.
    num_read = min(max(int(prompt_lengths.max()) - past, 0 if past else 1), length)
    if num_read and read < past:
        raise UserError(
            f"the cache holds {past} tokens, of which augs that read prompts only have read {read}; "
            "begin another prompt with a cache of its own"
        )
    return prompt_lengths, num_read


def positions_in_documents(starts: Tensor, length: int) -> Tensor:
    """Return the positions (1, length) of the tokens of a packed row within their documents.

    Args:
        starts: (documents + 1,), start of each document, then the end of the last one.
    """
    places = torch.arange(length, device=starts.device)
    return (places - starts[torch.searchsorted(starts, places, right=True) - 1])[None]


def packed_documents(position_ids: Tensor) -> Tensor | None:
    """Return the document index (batch, seq) of each token of packed rows; None if every row is one document.

    A position that does not continue the one before begins another document, as in transformers.
    """
    documents = (position_ids.diff(dim=-1, prepend=position_ids[:, :1] - 1) != 1).cumsum(-1)
    return documents if documents[:, -1].any() else None


def bridge_mask(
    visible: Tensor, attention_mask: Tensor | None, aug_length: int, documents: Tensor | None = None
) -> Tensor:
    """Return the attention mask of a bridge (batch, 1, anchor_seq, aug_seq), True = may be attended.

    Args:
        visible: (batch, anchor_seq), number of aug positions, from the first, that each anchor position may see.
        attention_mask: (batch, seq), True = a real token; None = no padding.
        aug_length: aug_seq, the number of keys: fewer than seq if the aug has read less, more if a static cache has
            free room, which stays invisible.
        documents: (batch, seq) from `packed_documents`: tokens see only their own document.
    """
    mask = torch.arange(aug_length, device=visible.device) < visible[:, :, None]
    if attention_mask is not None:
        real = F.pad(attention_mask.bool(), (0, max(aug_length - attention_mask.shape[1], 0)))[:, :aug_length]
        mask = mask & real[:, None, :]
    if documents is not None:
        mask = mask & (documents[:, :, None] == documents[:, None, :aug_length])
    return mask[:, None]
