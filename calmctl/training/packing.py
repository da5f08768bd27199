"""Packing: place documents of a corpus side by side in rows of one length, without attention between documents."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.context import AugContext
from calmctl.modeling.own_masks import why_no_own_masks
from calmctl.training.examples import Examples

# Largest allowed change of a document's logits when the document before it changes, in standard deviations.
_TOLERANCE = 1e-3


def pack(examples: Examples, context: int, augs: Sequence[AugContext] = ()) -> Examples:
    """Return rows of at most `context` tokens with as many documents each as fit (best fit, longest first).

    Longer documents are cut into pieces of `context` tokens, which count as documents. A piece of one token is left
    out, because nothing before it predicts it.

    Args:
        augs: context lengths of augs with their own tokenizers.

    Raises:
        UserError: the examples have prompts, none has two tokens, or a piece is too long for an aug.
    """
    if examples.completion_starts.any():
        raise UserError("train.packing is for rows of `text`; set train.packing=false for prompts and completions")
    begins, lengths, documents = _pieces(examples, context)
    if not len(lengths):
        raise UserError("train.packing: no text has two tokens, so there is nothing to predict")
    _check_read(augs, [examples.ids[begin : begin + length] for begin, length in zip(begins, lengths, strict=True)])
    rows = _best_fit(lengths, context)
    order = np.concatenate(rows)
    begins, lengths, documents = begins[order], lengths[order], documents[order]
    # Where each piece begins in the packed ids, and from that every token's place in its piece.
    packed_begins = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(packed_begins, lengths)
    last = np.cumsum([len(row) for row in rows]) - 1
    first = np.concatenate([[0], last[:-1] + 1])
    return Examples(
        ids=examples.ids[np.repeat(begins, lengths) + positions],
        starts=np.concatenate([[0], np.cumsum(lengths)[last]]),
        completion_starts=np.zeros(len(rows), np.int32),
        meta={},
        rows=examples.rows[documents[first]],
        counts={**examples.counts, "packed_rows": len(rows)},
        positions=positions.astype(np.int32),
    )


def _pieces(examples: Examples, context: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where each piece begins in the ids, its length, and the index of its document."""
    counts = -(-examples.lengths // context)
    first = np.cumsum(counts) - counts
    offsets = context * (np.arange(counts.sum()) - np.repeat(first, counts))
    lengths = np.minimum(np.repeat(examples.lengths, counts) - offsets, context)
    begins = np.repeat(examples.starts[:-1], counts) + offsets
    documents = np.repeat(np.arange(len(counts)), counts)
    return begins[lengths > 1], lengths[lengths > 1], documents[lengths > 1]


def _check_read(augs: Sequence[AugContext], pieces: Sequence[NDArray[np.int32]]) -> None:
    """Raise UserError if a piece has more tokens in an aug's own tokenizer than the aug can read."""
    for aug in augs:
        long = np.flatnonzero(aug.may_exceed(pieces)).tolist()
        longest = max((aug.longest(pieces[place].tolist()) for place in long), default=0)
        if longest > aug.length:
            raise UserError(
                f"train.context: a text of that many tokens has {longest} in the tokenizer of aug {aug.index}, which "
                f"reads {aug.length}; set it lower"
            )


def _best_fit(lengths: NDArray[np.int64], context: int) -> list[list[int]]:
    """Return the pieces of each row: the longest first, each into the row with the least sufficient room."""
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(context + 1)]
    # Bit r is set if some row has room for exactly r more tokens, so that finding the best fit needs no search.
    rooms = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = context, len(rows)
            rows.append([])
        rows[row].append(piece)
        by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


def check_packing_of_augs(
    aug_reads: str, augs: Sequence[PreTrainedModel], segmentations: Sequence[object | None]
) -> None:
    """Check whether augs, with or without weights, can read packed rows, without running them.

    Args:
        segmentations: per aug, anything but None if it has its own tokenizer.

    Raises:
        UserError: augs read prompts only, which packed rows lack, or an aug with its own tokenizer cannot be given an
            attention mask of ours.
    """
    if aug_reads == "prompt":
        raise UserError("train.packing: augs that read prompts only cannot read packed rows; set it to false")
    for index, (aug, own) in enumerate(zip(augs, segmentations, strict=True)):
        if own is not None and (reason := why_no_own_masks(aug)):
            raise UserError(
                f"train.packing: aug {index}, a {type(aug).__name__} with a tokenizer of its own, cannot be told which "
                f"tokens are of the same text: {reason}; set it to false"
            )


def check_packing(model: PreTrainedModel) -> None:
    """Test on four tokens whether documents of a packed row see each other.

    Raises:
        UserError: they do, in the model or in one of its bases.
    """
    bases = [model]
    if isinstance(model, ComposedModelForCausalLM):
        augs, own = [cast(PreTrainedModel, aug) for aug in model.augs], model.config.segmentations
        check_packing_of_augs(model.config.aug_reads, augs, own)
        # Augs with their own tokenizers are given an attention mask instead.
        bases = [model.anchor, *(aug for aug, cut in zip(augs, own, strict=True) if cut is None)]
    for base in bases:
        if not _keeps_documents_apart(base):
            raise UserError(
                f"train.packing: {type(base).__name__} lets documents of a packed row see each other; set it to false"
            )


@torch.no_grad()
def _keeps_documents_apart(model: PreTrainedModel) -> bool:
    """Tell whether the logits of a second document do not depend on the first."""
    was_training = model.training
    ids = torch.tensor([[4, 5, 2, 3], [6, 7, 2, 3]], device=model.device)
    positions = torch.tensor([[0, 1, 0, 1]], device=model.device).expand(2, -1)
    try:
        logits = model.eval()(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 2:].float()
    except TypeError:  # it takes no position_ids
        return False
    finally:
        model.train(was_training)
    return bool((logits[0] - logits[1]).abs().max() <= _TOLERANCE * logits.std())
