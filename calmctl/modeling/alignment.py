"""Alignment: which aug positions an anchor position may attend to.

The bridge never assumes that the two models read the same tokens at the same places. It is given, per anchor
position, how many aug positions are visible. With one tokenizer that is everything up to and including the position
itself. What augs with tokenizers of their own have read, and put aside again, `tokenizers/aug_tokens.py` says.
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
        prompt_lengths: (batch,), what an aug that reads prompts only has read: never more than these are visible.
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
        prompt_lengths: (batch,) when they are known; else the prompt is the whole first input.
        past: number of tokens in the cache; `read`: how many of them such augs have read.

    Raises:
        UserError: the prompt goes on where the augs have missed something before.
    """
    if prompt_lengths is None:
        prompt_lengths = torch.full((batch_size,), read if past else length)
    # Without a single key there would be nothing to attend to; what may be seen is the lengths' business.
    num_read = min(max(int(prompt_lengths.max()) - past, 0 if past else 1), length)
    if num_read and read < past:
        raise UserError(
            f"the cache holds {past} tokens, of which augs that read prompts only have read {read}; "
            "begin another prompt with a cache of its own"
        )
    return prompt_lengths, num_read


def positions_in_documents(starts: Tensor, length: int) -> Tensor:
    """Return the positions (1, length) of the tokens of a packed row in their documents.

    Args:
        starts: (documents + 1,), where each document begins, and the end of the last one.
    """
    places = torch.arange(length, device=starts.device)
    return (places - starts[torch.searchsorted(starts, places, right=True) - 1])[None]


def packed_documents(position_ids: Tensor) -> Tensor | None:
    """Return the document (batch, seq) that each token of a packed row belongs to, or None where rows hold one each.

    Positions that do not go on by one begin another document, as transformers reads packed rows.
    """
    documents = (position_ids.diff(dim=-1, prepend=position_ids[:, :1] - 1) != 1).cumsum(-1)
    return documents if documents[:, -1].any() else None


def bridge_mask(
    visible: Tensor, attention_mask: Tensor | None, aug_length: int, documents: Tensor | None = None
) -> Tensor:
    """Return the attention mask of a bridge (batch, 1, anchor_seq, aug_seq), True = may be attended.

    Args:
        visible: (batch, anchor_seq), how many aug positions, counted from the first, each anchor position may see.
        attention_mask: (batch, seq), True = a real token; None = no padding.
        aug_length: aug_seq, the number of aug positions there are keys for: fewer than seq where the aug has read
            less, more where a static cache has room left, which nothing sees.
        documents: (batch, seq) from `packed_documents`: tokens see those of their own only.
    """
    mask = torch.arange(aug_length, device=visible.device) < visible[:, :, None]
    if attention_mask is not None:
        real = F.pad(attention_mask.bool(), (0, max(aug_length - attention_mask.shape[1], 0)))[:, :aug_length]
        mask = mask & real[:, None, :]
    if documents is not None:
        mask = mask & (documents[:, :, None] == documents[:, None, :aug_length])
    return mask[:, None]
