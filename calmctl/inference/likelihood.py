"""Likelihood: the bits (negative log2-likelihood) of given texts after prompts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.decoding import NotFiniteError
from calmctl.inference.reading import Together
from calmctl.modeling.calling import accepts
from calmctl.modeling.context import aug_contexts, context_length
from calmctl.modeling.loss import CHUNK_ELEMENTS, IGNORED, labelled_rows_only
from calmctl.modeling.probe import (
    Findings,
    agree,
    deviation,
    failing_as,
    probe_ids,
    tolerance,
    without_rounding,
)
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.stored.parts import PartsModel

# Lengths of the probe texts (the first is padded in a batch with the others), and their first scored token.
_LENGTHS, _START = (5, 12, 12), 2


@dataclass(frozen=True)
class _Way:
    """How texts are read: which may share a batch (see `Reading`), and whether the head may run on labels only."""

    together: Together
    labels_only: bool


_findings: Findings[_Way] = Findings()


class ScoredTexts:
    """Texts after prompts, tokenised, and the bits (negative log2-likelihood) that a model gives them.

    Prompt and text are tokenised together, as in lm-evaluation-harness (`TemplateLM._encode_pair`). Scored are all
    tokens after those shared with the prompt tokenised alone, so a token across the border counts. Bits per UTF-8 byte
    of a text do not depend on the tokenizer.

    Raises:
        UserError: a prompt and its text exceed the model's context, or the model attends to later tokens.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], texts: Sequence[str]
    ) -> None:
        self._model = model
        self.wholes, self._starts = encoded_pairs(model, tokenizer, prompts, texts)
        # Texts that differ in their last token only (`yes` and `no` after a question) are read once.
        self._alike: dict[tuple[int, ...], list[int]] = {}
        for place, whole in enumerate(self.wholes):
            self._alike.setdefault((self._starts[place], *whole[:-1]), []).append(place)
        with torch.inference_mode():
            self._way = _way_of(model)

    def batches(self, batch_size: int) -> Iterator[list[int]]:
        """Yield batches of indices that the model can read together, longest texts first.

        Of texts that differ in their last token only, the first stands for all.
        """
        firsts = [places[0] for places in self._alike.values()]
        order = sorted(firsts, key=lambda place: -len(self.wholes[place]))
        return _batches(order, self.wholes, self._way, batch_size)

    @torch.inference_mode()
    def bits(self, places: Sequence[int]) -> list[tuple[int, float]]:
        """Return index and bits of each text of a batch, read at once, and of those that it stands for.

        Raises:
            NotFiniteError: the likelihood of a text is NaN or zero.
        """
        rows, starts = [self.wholes[place] for place in places], [self._starts[place] for place in places]
        alike = [self._alike[(start, *row[:-1])] for row, start in zip(rows, starts, strict=True)]
        lasts = [[self.wholes[place][-1] for place in same] for same in alike]
        bits = _batch_bits(self._model, rows, starts, lasts, self._way)
        found = [pair for same, values in zip(alike, bits, strict=True) for pair in zip(same, values, strict=True)]
        if bad := [place for place, value in found if not math.isfinite(value)]:
            raise NotFiniteError(self._model, "bits of the reference", bad[0])
        return found


def encoded_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], texts: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Return the ids of each prompt with its text, and the index of the first scored one; `model` needs no weights.

    Raises:
        UserError: a prompt and its text exceed the model's context, or the prompt is empty and the tokenizer has no
            token that begins or ends a text.
    """
    wholes, starts = [], []
    together = prompt_ids(tokenizer, [prompt + text for prompt, text in zip(prompts, texts, strict=True)])
    for whole, prompt in zip(together, prompt_ids(tokenizer, prompts), strict=True):
        start = next((place for place, (one, other) in enumerate(zip(whole, prompt, strict=False)) if one != other), -1)
        start = min(len(whole), len(prompt)) if start < 0 else start
        if start == 0:  # a first token is never predicted
            whole, start = [_first_id(tokenizer), *whole], 1
        wholes.append(whole)
        starts.append(start)
    limit = context_length(model)
    if limit and (long := [place for place, ids in enumerate(wholes) if len(ids) > limit]):
        raise UserError(
            f"likelihoods: {len(long)} of {len(wholes)} prompts exceed the model's context of {limit} tokens with "
            "their references; use fewer shots or shorter texts (of the task text a smaller window)"
        )
    for aug in aug_contexts(model):
        places = np.flatnonzero(aug.may_exceed(wholes))
        if num_long := sum(aug.longest(wholes[place]) > aug.length for place in places):
            raise UserError(
                f"likelihoods: {num_long} of {len(wholes)} prompts exceed, with their references, the {aug.length} "
                f"tokens of its own that aug {aug.index} reads; use fewer shots or shorter texts (of the task text a "
                "smaller window)"
            )
    return wholes, starts


def _first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise UserError("likelihoods: an empty prompt, and a tokenizer with no token that begins or ends a text")


def _way_of(model: PreTrainedModel) -> _Way:
    """Return how a model can read texts; tested once, on a few tokens.

    Raises:
        UserError: logits depend on later tokens, so they are no likelihoods.
    """

    def find() -> _Way:
        way = without_rounding(model, lambda: _tried(model), lambda way: way is None or _is_finite(model, way))
        if way is None:
            raise UserError(
                f"bits_per_byte: {type(model).__name__} attends to later tokens, so its likelihoods are those of texts "
                "that it has seen; leave bits_per_byte out"
            )
        return way

    return _findings.of(model, find)


def _bases(model: PreTrainedModel) -> list[PreTrainedModel]:
    return model.bases() if isinstance(model, PartsModel) else [model]


def _probes(model: PreTrainedModel) -> list[list[int]]:
    """Return the token ids of the probe texts."""
    ids = probe_ids(_bases(model), len(_LENGTHS), max(_LENGTHS))
    return [ids[row, :length].tolist() for row, length in enumerate(_LENGTHS)]


def _is_finite(model: PreTrainedModel, way: _Way) -> bool:
    """Tell whether the probe texts have finite logits when read in this way."""
    rows = _probes(model)
    read = [[row] for row in rows] if way.together == "alone" else [rows] if way.together == "padded" else [rows[1:]]
    return all(bool(_labelled(model, each, [_START] * len(each), way)[0].amax(-1).isfinite().all()) for each in read)


def _tried(model: PreTrainedModel) -> _Way | None:
    """Test how a model can read texts; None if it attends to later tokens."""
    rows, starts, allowed = _probes(model), [_START] * len(_LENGTHS), tolerance(_bases(model))
    plain = _Way("alone", labels_only=False)
    with failing_as(f"bits_per_byte: {type(model).__name__} cannot read a text"):
        alone = [_labelled(model, [row], [_START], plain)[0] for row in rows]
        shorter = _labelled(model, [rows[-1][: _LENGTHS[0]]], [_START], plain)[0]
    if not all(logits.amax(-1).isfinite().all() for logits in alone):
        return plain  # the texts themselves will raise NotFiniteError
    if deviation(shorter, alone[-1][: len(shorter)]) > allowed:
        return None

    def is_right(way: _Way, places: Sequence[int]) -> bool:
        asked = [rows[place] for place in places], [starts[place] for place in places]
        expected = torch.cat([alone[place] for place in places])
        return agree(lambda: _labelled(model, *asked, way)[0], expected, allowed)

    labels_only = is_right(_Way("alone", labels_only=True), [0])
    padded, equal = _Way("padded", labels_only), _Way("equal", labels_only)
    if is_right(padded, range(len(rows))):
        return padded
    return equal if is_right(equal, [1, 2]) else _Way("alone", labels_only)


def _batches(order: Sequence[int], rows: Sequence[Sequence[int]], way: _Way, batch_size: int) -> Iterator[list[int]]:
    """Yield batches of indices that a model can read in this way; `order` is sorted by length."""
    batch: list[int] = []
    for place in order:
        is_full = len(batch) == (1 if way.together == "alone" else batch_size)
        if batch and (is_full or way.together == "equal" and len(rows[place]) != len(rows[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _batch_bits(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    lasts: Sequence[Sequence[int]],
    way: _Way,
) -> list[list[float]]:
    """Return the bits of each row with each of some last tokens."""
    logits, targets, row_of = _labelled(model, rows, starts, way)
    # In pieces: in float32, and once more inside of the function, all logits take several times their own memory.
    pieces = (each.split(max(1, CHUNK_ELEMENTS // logits.shape[-1])) for each in (logits, targets))
    nats = torch.cat([F.cross_entropy(some.float(), of, reduction="none") for some, of in zip(*pieces, strict=True)])
    totals = torch.zeros(len(rows), device=nats.device).index_add_(0, row_of, nats)
    found = [[total] for total in totals.tolist()]
    ends = row_of.bincount(minlength=len(rows)).cumsum(0) - 1  # the place of each row's last label
    for row, tokens in enumerate(lasts):
        if len(tokens) == 1:
            continue
        others = F.cross_entropy(
            logits[ends[row]].float().expand(len(tokens), -1),
            torch.tensor(tokens, device=logits.device),
            reduction="none",
        )
        found[row] = (totals[row] - nats[ends[row]] + others).tolist()
    return [[value / math.log(2) for value in values] for values in found]


def _labelled(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], starts: Sequence[int], way: _Way
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits (labels, vocabulary) that predict the labels, the labels, and the row of each."""
    # Right padding: no token attends to it, and it has no labels.
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for row, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        labels[row, start : len(ids)] = input_ids[row, start : len(ids)]
    device = model.device
    labels = labels.to(device)
    inputs = {"input_ids": input_ids.to(device)}
    if accepts(model, "attention_mask"):
        inputs["attention_mask"] = attention_mask.to(device)
    # Augs that read prompts only would otherwise read the text as part of the prompt.
    if getattr(model.config, "aug_reads", None) == "prompt":
        inputs["prompt_lengths"] = torch.tensor(starts, device=device)
    without_cache = {"use_cache": False} if accepts(model, "use_cache") else {}
    if way.labels_only:
        with labelled_rows_only(model, labels) as targets:
            logits: Tensor = model(**inputs, **without_cache).logits[0]
        targets = targets[0]
    else:
        rows_of_labels = labels[:, 1:] != IGNORED
        logits = model(**inputs, **without_cache).logits[:, :-1]
        logits, targets = logits[rows_of_labels.to(logits.device)], labels[:, 1:][rows_of_labels]
    row_of = (labels[:, 1:] != IGNORED).nonzero()[:, 0]
    return logits, targets.to(logits.device), row_of.to(logits.device)
