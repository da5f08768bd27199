"""Hidden states that training the bridges cannot change, kept from epoch to epoch (see `modeling.kept_states`).

They are computed for all examples before the first step, in batches that do not depend on the seed, so that a resumed
training continues with the same numbers.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.alignment import prompts_before
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.kept_states import KeptStates
from calmctl.modeling.placement import is_movable
from calmctl.modeling.residual_streams import real_tokens
from calmctl.processes.ranks import current_ranks
from calmctl.runs.run import Run
from calmctl.training.batches import Batches, alike
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings
from calmctl.training.validation import Validation

# `auto` keeps states that are read at least this often and take at most this many bytes.
LEAST_PASSES, MOST_BYTES = 2.0, 4 << 30
# Tokens per batch, padding included, when states are computed; a longer example is a batch of its own.
AT_ONCE = 2048
# Largest change of the anchor's last hidden states that kept states may cause, in standard deviations.
TOLERANCE = 1e-3
STATES_FOLDER = "kept_states"


@dataclass
class _Stream:
    """The states of one layer, of all examples end to end.

    Attributes:
        starts: (n + 1,) offset of each example in `values`, and the end.
        values: (tokens, dim).
    """

    starts: NDArray[np.int64]
    values: Tensor

    def put(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Store the states (batch, columns, dim) of some examples."""
        for row, each in zip(rows, states, strict=True):
            begin, end = self.starts[row], self.starts[row + 1]
            self.values[begin:end] = each[: end - begin]

    def of(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the states (batch, columns, dim) of some examples, right-padded with zeros."""
        return pad_sequence([self.values[self.starts[row] : self.starts[row + 1]] for row in rows], batch_first=True)


class StateStore:
    """The kept states of all examples.

    Args:
        folder: for memory-mapped files; None = keep the states in memory.
    """

    def __init__(self, model: ComposedModelForCausalLM, examples: Examples, folder: Path | None = None) -> None:
        self._model, self._examples, self._folder = model, examples, folder
        self._in_tuple = False
        self._anchor: _Stream | None = None
        self._augs: list[dict[int, _Stream]] = []

    def of(self, rows: NDArray[np.int64]) -> KeptStates:
        """Return the states of some examples, as a composed model takes them (`kept_states`)."""
        anchor = cast(_Stream, self._anchor).of(rows)
        augs = [{layer: stream.of(rows) for layer, stream in each.items()} for each in self._augs]
        return KeptStates(anchor=(anchor,) if self._in_tuple else anchor, augs=augs)

    def put(self, rows: NDArray[np.int64], found: KeptStates) -> None:
        """Store the states of some examples."""
        anchor = found["anchor"]
        if self._anchor is None:
            self._in_tuple = isinstance(anchor, tuple)
            self._anchor = self._stream("anchor", self._examples.starts, layers.layer_output(anchor))
            for index, states in enumerate(found["augs"]):
                starts = _aug_starts(self._model, self._examples, index)
                streams = {layer: self._stream(f"aug_{index}_{layer}", starts, each) for layer, each in states.items()}
                self._augs.append(streams)
        self._anchor.put(rows, layers.layer_output(anchor))
        for streams, states in zip(self._augs, found["augs"], strict=True):
            for layer, each in states.items():
                streams[layer].put(rows, each)

    def _stream(self, name: str, starts: NDArray[np.int64], like: Tensor) -> _Stream:
        shape = int(starts[-1]), like.shape[-1]
        if self._folder is None:
            return _Stream(starts, torch.empty(shape, dtype=like.dtype))
        file = str(self._folder / name)
        _reserve(self._folder / name, shape[0] * shape[1] * like.dtype.itemsize)
        return _Stream(starts, torch.from_file(file, True, shape[0] * shape[1], dtype=like.dtype).view(shape))


def _reserve(file: Path, size: int) -> None:
    """Allocate a file; raise UserError if the disk is full, which writing to a mapped file cannot report later."""
    try:
        with file.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size) if hasattr(os, "posix_fallocate") else stream.truncate(size)
    except OSError as error:
        raise UserError(
            f"train.keep_states=disk: {file} needs {size >> 20} MiB ({error.strerror}); use none"
        ) from error


def bytes_of_states(model: ComposedModelForCausalLM, examples: Examples) -> int:
    """Return the size of the kept states of all examples in bytes, in the bases' dtypes."""
    size = int(examples.starts[-1]) * layers.hidden_size(model.anchor.config) * model.anchor.dtype.itemsize
    for index, (aug, pairs) in enumerate(zip(model.augs, model.connections, strict=True)):
        base = cast(PreTrainedModel, aug)
        tokens, taps = int(_aug_starts(model, examples, index)[-1]), len({pair.aug_layer for pair in pairs})
        size += tokens * taps * layers.hidden_size(base.config) * base.dtype.itemsize
    return size


def _aug_starts(model: ComposedModelForCausalLM, examples: Examples, index: int) -> NDArray[np.int64]:
    """Return the offsets (n + 1,) of the examples among all tokens that an aug reads."""
    if index < len(examples.augs) and (own := examples.augs[index]) is not None:
        return own.starts
    if model.config.aug_reads == "prompt":
        return np.concatenate([[0], np.cumsum(examples.completion_starts, dtype=np.int64)])
    return examples.starts


def where_to_keep(settings: TrainSettings, model: ComposedModelForCausalLM, examples: Examples, passes: float) -> str:
    """Return `memory`, `disk` or `none`: the setting, or for `auto` what suits the number of passes and the size.

    Raises:
        UserError: the setting is `memory` or `disk`, but states cannot be kept with this model or several processes.
    """
    reason = "" if is_movable(model) else "a base is spread over devices"
    reason = "each of several processes would keep them all" if current_ranks().count > 1 else reason
    if settings.keep_states == "auto":
        pays = passes >= LEAST_PASSES and bytes_of_states(model, examples) <= MOST_BYTES
        return "memory" if pays and not reason else "none"
    if settings.keep_states != "none" and reason:
        raise UserError(f"train.keep_states={settings.keep_states}: {reason}; use none")
    return settings.keep_states


@torch.no_grad()
def keep_states(
    model: ComposedModelForCausalLM,
    batches: Batches,
    precision: str,
    folder: Path | None = None,
    parts: Sequence[NDArray[np.int64]] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> StateStore:
    """Compute and store the states of all examples.

    Args:
        precision: that of the training.
        folder: for the files; None = keep the states in memory.
        parts: the examples of each later batch, if these are always the same: with the same batches, results are
            bit-identical to those without kept states.
        report: told how many examples are done, of how many.

    Raises:
        UserError: the anchor computes something else from kept states than from its own.
    """
    store, device = StateStore(model, batches.examples, folder), layers.device_of(model.get_input_embeddings())
    by_length = np.argsort(batches.examples.lengths, kind="stable")
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, types.get(precision), enabled=precision in types):
            _check(model, _inputs(model, batches, by_length[[0, -1]], device))
            done, total = 0, len(batches.examples)
            for rows in parts or alike(by_length, batches.examples.lengths, AT_ONCE):
                report(done, total)
                done += len(rows)
                store.put(rows, model.model.states_to_keep(**_inputs(model, batches, rows, device)))
    finally:
        model.train(was_training)
    return store


def _inputs(
    model: ComposedModelForCausalLM, batches: Batches, rows: NDArray[np.int64], device: torch.device
) -> dict[str, Any]:
    """Return the model's inputs for some examples."""
    batch = send_to_device(batches.collate(rows), device)
    labels = batch.pop("labels")
    return batch | {"prompt_lengths": prompts_before(labels)} if model.config.aug_reads == "prompt" else batch


def _check(model: ComposedModelForCausalLM, batch: dict[str, Any]) -> None:
    """Raise UserError if kept states change the anchor's output, as where layers share more than hidden states."""
    refused = "train.keep_states: layers of the anchor read more of others than their output; use none"
    expected = model.model(**batch, use_cache=False).last_hidden_state.float()
    try:
        kept = model.model.states_to_keep(**batch)
        found = model.model(**batch, kept_states=kept, use_cache=False).last_hidden_state.float()
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(refused) from error
    is_real = real_tokens(batch)
    if not (found - expected)[is_real].abs().max() <= TOLERANCE * expected[is_real].std():
        raise UserError(refused)


@contextmanager
def kept(
    model: PreTrainedModel, settings: TrainSettings, batches: Batches, validation: Validation | None, run: Run
) -> Iterator[dict[str, Any]]:
    """Keep states while the block trains; yield the facts about it for `run.json`.

    Raises:
        UserError: the settings ask for kept states, but they cannot be kept.
    """
    facts: dict[str, Any] = {}
    folder = run.path / STATES_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
    if not isinstance(model, ComposedModelForCausalLM):
        if settings.keep_states in ("memory", "disk"):
            raise UserError(
                f"train.keep_states={settings.keep_states}: only compositions have states to keep; use none"
            )
        yield facts
        return
    if settings.keep_states == "none":
        yield facts
        return
    looked_at: dict[str, Any] = {"training": (batches, batches.passes, None)}
    if validation is not None:
        passes = settings.steps / settings.validation_steps + 1
        looked_at["validation"] = (validation.batches, passes, validation.parts())
    try:
        for name, (each, passes, parts) in looked_at.items():
            where = where_to_keep(settings, model, each.examples, passes)
            facts[name] = where
            if where == "none":
                continue
            place = folder / name if where == "disk" else None
            if place is not None:
                place.mkdir(parents=True)
            try:
                report = partial(run.report_progress, f"keeping states for {name}")
                each.store = keep_states(model, each, settings.precision, place, parts, report)
            except UserError:
                if settings.keep_states != "auto":
                    raise
                facts[name] = "none"
        yield {"kept_states": facts}
    finally:
        for each, *_ in looked_at.values():
            each.store = None
        shutil.rmtree(folder, ignore_errors=True)
