"""Training examples: the rows of training data as token ids."""

import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.context import AugContext
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.tokenizers.segmentation import NEVER, Segments
from calmctl.processes.ranks import current_ranks
from calmctl.training.example_files import meta_of, open_ended, read_examples
from calmctl.training.settings import TrainSettings

TOKENIZER_BATCH = 10_000

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class AugExamples:
    """The tokens that an aug with its own tokenizer reads of the examples, stored end to end (see `AugTokens`).

    Attributes:
        columns: (4, aug tokens) ids, born, died and places.
        starts: (n + 1,) offset of each example in `columns`, and the end.
    """

    columns: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Segments]) -> "AugExamples":
        """Concatenate the tokens read of each example."""
        columns = tuple(array("i") for _ in range(4))  # lists would take ten times the memory
        starts = array("q", [0])
        for found in rows:
            for column, values in zip(columns, (found.ids, found.born, found.died, found.places), strict=True):
                column.extend(values)
            starts.append(len(columns[0]))
        return cls(np.asarray(columns, np.int32), np.asarray(starts, np.int64))

    def stacked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens read of some examples (batch, 4, columns), right-padded with invisible columns."""
        begins, lengths = self.starts[rows], np.diff(self.starts)[rows]
        stacked = np.zeros((len(rows), 4, max(int(lengths.max()), 1)), np.int64)
        stacked[:, 1:3] = NEVER
        for line, begin, length in zip(stacked, begins, lengths, strict=True):
            line[:, :length] = self.columns[:, begin : begin + length]
        return stacked


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, stored end to end.

    Attributes:
        ids: all token ids, one example after the other.
        starts: (n + 1,) offset of each example in `ids`, and the end.
        completion_starts: (n,) number of tokens of each example before its first label (its prompt).
        meta: fields of the rows' `meta`, each (n,).
        rows: (n,) row of the data of each example (of a packed one: of its first document), counted from 1.
        counts: number of rows and examples (of conversations: of answers), and of examples dropped or truncated.
        positions: position of each id in its document; for packed examples only (see `packing`).
        augs: per aug, the tokens it reads, if it has its own tokenizer; else None (see `aug_examples`).
        learned_bytes: (n,) UTF-8 bytes of each completion or text; None if unknown.
        dataset_index: (n,) which of several datasets each example is of; None if there is one.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    completion_starts: NDArray[np.int32]
    meta: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]
    counts: dict[str, int]
    positions: NDArray[np.int32] | None = None
    augs: tuple[AugExamples | None, ...] = ()
    learned_bytes: NDArray[np.int64] | None = None
    dataset_index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.completion_starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each example in tokens."""
        return np.diff(self.starts)

    def example(self, index: int) -> NDArray[np.int32]:
        """Return the token ids of one example."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def subset(self, indices: NDArray[np.int64]) -> "Examples":
        """Return some of the examples, in this order; not for packed ones."""
        lengths = self.lengths[indices]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(starts[-1]) + np.repeat(self.starts[indices] - starts[:-1], lengths)
        meta = {name: values[indices] for name, values in self.meta.items()}
        rows, counts = self.rows[indices], {**self.counts, "examples": len(indices)}
        sizes = self.learned_bytes[indices] if self.learned_bytes is not None else None
        begins = self.completion_starts[indices]
        of = self.dataset_index[indices] if self.dataset_index is not None else None
        return Examples(self.ids[places], starts, begins, meta, rows, counts, learned_bytes=sizes, dataset_index=of)


def load_examples(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
    context: int | None = None,
    augs: Sequence[AugContext] = (),
    columns: Mapping[str, str] | None = None,
) -> Examples:
    """Read and tokenise training data.

    Prompt and completion are tokenised separately, so that a token boundary lies between them and training sees exactly
    the tokens that are generated later. With `append_eos`, every completion or text ends with the tokenizer's
    end-of-text token, except in rows whose `meta.open_ended` says that the text goes on.

    Args:
        source: a file, pattern, folder or hub id (see `data_builders.row_sources`).
        context: tokens that the model can read; None = unlimited.
        augs: context lengths of augs with their own tokenizers.
        columns: our name of a column -> its name in the data.

    Raises:
        UserError: the data cannot be read (see `read_examples`); there is no eos token; examples are empty or too long
            and the settings say `fail`; or no examples are left.
    """
    name = str(source)
    table, numbers = read_examples(name, tokenizer, columns)
    append_eos = settings.append_eos
    if append_eos and tokenizer.eos_token_id is None:
        raise UserError(f"train.append_eos: the tokenizer {tokenizer.name_or_path!r} has no end-of-text token")
    meta = meta_of(table)
    closed = [not is_open for is_open in open_ended(name, table)]
    ends = [[tokenizer.eos_token_id] if append_eos and is_closed else [] for is_closed in closed]
    has_prompt = {"prompt", "completion"} <= set(table.column_names)
    # Opening tokens (BOS) do not count as something to learn.
    num_opening = 0 if has_prompt else len(prompt_ids(tokenizer, [""])[0])
    sequences: list[list[int]] = []
    prompt_lengths: list[int] = []
    learned: list[int] = []
    sizes: list[int] = []
    for batch in table.to_batches(max_chunksize=TOKENIZER_BATCH):
        completions = _tokenise(tokenizer, batch["completion" if has_prompt else "text"], not has_prompt)
        prompts = _tokenise(tokenizer, batch["prompt"], True) if has_prompt else [[]] * len(completions)
        prompt_lengths += map(len, prompts)
        learned += [len(completion) - num_opening for completion in completions]
        sizes += pc.binary_length(batch["completion" if has_prompt else "text"]).to_pylist()
        here = ends[len(sequences) : len(sequences) + len(completions)]
        sequences += [
            prompt + completion + end for prompt, completion, end in zip(prompts, completions, here, strict=True)
        ]
    room = _room(sequences, context, augs)
    measured = np.asarray(prompt_lengths), np.asarray(learned)
    kept, counts = _choose(name, numbers, sequences, *measured, settings, context, room)
    sequences = [sequences[index][: room[index]] for index in kept]
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    # Without a BOS token the first token of a text has no label, and truncated rows lack labels too.
    is_known = not counts["truncated"] and (has_prompt or num_opening > 0)
    return Examples(
        np.fromiter(chain.from_iterable(sequences), np.int32, lengths.sum()),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.asarray(prompt_lengths, np.int32)[kept],
        {name: values[kept] for name, values in meta.items()},
        numbers[kept],
        counts,
        learned_bytes=np.asarray(sizes, np.int64)[kept] if is_known else None,
    )


def _choose(
    source: str,
    numbers: NDArray[np.int64],
    sequences: list[list[int]],
    prompt_lengths: NDArray[np.int64],
    learned: NDArray[np.int64],
    settings: TrainSettings,
    context: int | None,
    room: NDArray[np.int64],
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the indices of the examples to train on, and counts of those dropped or truncated.

    Args:
        numbers: (n,) row of the data of each example.
        room: (n,) how many tokens of each example the models can read.
    """
    total = len(sequences)
    lengths = np.fromiter(map(len, sequences), np.int64, total)
    # The first token is never predicted, so a single token teaches nothing.
    is_empty = (learned == 0) | (lengths < 2)
    if settings.on_empty_completion == "fail" and is_empty.any():
        row = numbers[np.argmax(is_empty)]
        raise UserError(
            f"{source}: row {row} has nothing to learn: its completion or text is empty, or a single token ("
            f"{is_empty.sum()} such rows of {total}); remove them, or set train.on_empty_completion=drop"
        )
    is_long = ~is_empty & (lengths > room)
    if settings.on_long_example == "fail" and is_long.any():
        longest = int(np.argmax(lengths * is_long))
        row, length = numbers[longest], lengths[longest]
        limit = f"the model's context of {context} tokens (the longest, row {row}, has {length})"
        if not context or length <= context:
            limit = f"the context of an aug, in its own tokens (of {length} in row {row} it reads {room[longest]})"
        raise UserError(
            f"{source}: {is_long.sum()} of {total} examples are longer than {limit}; shorten them, "
            "set train.on_long_example=drop or truncate, or let train.packing=true cut `text`"
        )
    can_be_cut = prompt_lengths < room
    is_cut = is_long & can_be_cut if settings.on_long_example == "truncate" else np.zeros(total, dtype=bool)
    kept = np.flatnonzero(~is_empty & (~is_long | is_cut))
    counts = {
        "rows": int(numbers[-1]),
        "examples": len(kept),
        "dropped_empty": int(is_empty.sum()),
        "dropped_long": int((is_long & ~is_cut).sum()),
        "truncated": int(is_cut.sum()),
    }
    if not len(kept):
        raise UserError(f"{source}: no examples are left ({_described(counts)})")
    if (len(kept) < total or is_cut.any()) and current_ranks().is_first:
        _LOGGER.warning("%s: %s", source, _described(counts))
    return kept, counts


def _room(sequences: list[list[int]], context: int | None, augs: Sequence[AugContext]) -> NDArray[np.int64]:
    """Return how many tokens of each example the anchor and the augs can read."""
    room = np.fromiter(map(len, sequences), np.int64, len(sequences))
    if context is not None:
        room = room.clip(max=context)
    for aug in augs:
        for index in np.flatnonzero(aug.may_exceed(sequences)):
            room[index] = min(room[index], aug.num_fitting(sequences[index]))
    return room


def _described(counts: dict[str, int]) -> str:
    return (
        f"of {counts['rows']:,} rows, {counts['dropped_empty']:,} are left out as empty, {counts['dropped_long']:,} as "
        f"longer than the context, and {counts['truncated']:,} are cut to it"
    )


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: pa.Array, opens: bool) -> list[list[int]]:
    """Tokenise texts; with `opens`, add the tokenizer's opening tokens (BOS)."""
    if opens:
        return prompt_ids(tokenizer, texts.to_pylist())
    return tokenizer(texts.to_pylist(), add_special_tokens=False, return_attention_mask=False)["input_ids"]
