"""Reading: which rows a model may be given together, found out by trying it on a few tokens.

A completion has to be the one that the model writes after its prompt alone. Most models pass over padding and go on
from caches; some do neither (a recurrent state runs through padding), and nothing but trying tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.continuation import Rows
from calmctl.inference.decoding import ready_to_write
from calmctl.inference.growing_cache import SharedPrefix, can_share
from calmctl.modeling.calling import cache_of
from calmctl.modeling.probe import (
    Findings,
    agree,
    deviation,
    failing_as,
    is_out_of_memory,
    probe_ids,
    tolerance,
    unchanged_chance,
    without_rounding,
)
from calmctl.modeling.stored.parts import PartsModel

Together = Literal["padded", "equal", "alone"]

# Tokens of the probe: much padding for the shorter prompt, and two stretches of a completion.
PREFIX, SHORT, LONG, STRETCH = 2, 4, 14, 2
# How far answers in 16 bits may lie apart where those in float32 are the same, as a share of their spread.
MOST_APART = 0.5


@dataclass(frozen=True)
class Reading:
    """How a model reads rows that it completes.

    Attributes:
        together: which rows may be a batch: any, padded on the left; those of equal lengths; or each one alone.
        goes_on: whether it goes on from a cache that it is given, so that rows that have ended can be left out and
            what prompts begin with is read once.
    """

    together: Together
    goes_on: bool

    def __str__(self) -> str:
        """Return what a result says of it."""
        rows = {"padded": "padded batches", "equal": "batches of equal lengths", "alone": "one row at a time"}
        return rows[self.together] + (", continued caches" if self.goes_on else "")


_findings: Findings[Reading] = Findings()


def reading_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reading:
    """Return how a model reads; it is tried once, and once more when its bridges have been trained.

    Raises:
        UserError: it cannot complete a single prompt, or completes it otherwise each time.
        CalmctlError: there is not enough memory for a few tokens.
    """
    with ready_to_write(model, tokenizer), unchanged_chance(model.device):
        pad_id = model.generation_config.pad_token_id

        def find() -> Reading:
            try:
                return without_rounding(
                    model, lambda: _Trial(model, pad_id).reading(), lambda found: _Trial(model, pad_id).allows(found)
                )
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise CalmctlError(f"out of memory with {LONG} tokens of {type(model).__name__}") from error
                raise

        return _findings.of(model, find, pad_id)


class _Trial:
    """Compares the logits of two scripted completions, made in several ways, with those of each prompt alone."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.bases = model.bases() if isinstance(model, PartsModel) else [model]
        self.allowed = tolerance(self.bases)
        ids = probe_ids(self.bases, 3, LONG + 2 * STRETCH, without=[pad_id])
        self.script = ids[:, LONG:]
        long, other = ids[0, :LONG].tolist(), ids[1, :LONG].tolist()
        # The short one begins as the long one does, and the third one is as long.
        self.prompts = [long[:PREFIX] + other[: SHORT - PREFIX], long, other]

    @torch.inference_mode()
    def reading(self) -> Reading:
        """Return the way that is closest to a whole batch and right."""
        name = type(self.model).__name__
        with failing_as(f"{name} cannot complete a prompt"):
            alone = [self._alone(place) for place in range(3)]
            again = self._alone(0)
        if not all(logits.amax(-1).isfinite().all() for logits in alone):
            return Reading("alone", goes_on=False)  # the prompts themselves are going to tell
        if deviation(again, alone[0]) > self.allowed:
            raise UserError(f"{name} computes other logits each time that it reads a prompt: figures would be chance")
        if self._is_right(self._in_stretches, alone[:2]):
            return Reading("padded", goes_on=True)
        if self._is_right(self._padded, alone):
            return Reading("padded", goes_on=False)
        if self._is_right(self._equal, alone[1:]):
            return Reading("equal", goes_on=False)
        return Reading("alone", goes_on=False)

    @torch.inference_mode()
    def allows(self, reading: Reading) -> bool:
        """Tell whether a way that was found in float32 gives numbers in 16 bits that are not plainly others."""
        if reading.together == "alone":
            return True
        way, places = (self._padded, (0, 1, 2)) if reading.together == "padded" else (self._equal, (1, 2))
        if reading.goes_on:
            way, places = self._in_stretches, (0, 1)
        self.allowed = MOST_APART
        return self._is_right(way, [self._alone(place) for place in places])

    def _is_right(self, way: Callable[[], Tensor], alone: Sequence[Tensor]) -> bool:
        return agree(way, torch.cat(list(alone)), self.allowed)

    def _alone(self, place: int) -> Tensor:
        """Complete one prompt as anyone would."""
        ids = torch.tensor([self.prompts[place]], device=self.model.device)
        return self._generate({"input_ids": ids}, self.script[place : place + 1])[0]

    def _in_stretches(self) -> Tensor:
        """Complete two prompts from what they have in common, leave off, change places, and go on."""
        if not can_share(self.model):
            return torch.empty(0)
        prefix = SharedPrefix(self.model, self.prompts[0][:PREFIX])
        rows = Rows(self.prompts[:2], self.pad_id, self.model.device, prefix.for_rows(2))
        if getattr(self.model.config, "aug_reads", None) == "prompt":
            return self._continue(rows, self.script[:2])  # a second call would take what is written for a prompt
        first = self._continue(rows, self.script[:2, :STRETCH])
        rows.keep([1, 0])
        return torch.cat([first, self._continue(rows, self.script[:2, STRETCH:].flip(0)).flip(0)], dim=1)

    def _padded(self) -> Tensor:
        return self._continue(Rows(self.prompts, self.pad_id, self.model.device), self.script)

    def _equal(self) -> Tensor:
        return self._continue(Rows(self.prompts[1:], self.pad_id, self.model.device), self.script[1:])

    def _continue(self, rows: Rows, script: Tensor) -> Tensor:
        logits, output = self._generate(rows.arguments(self.model), script)
        rows.extend(output.sequences, cache_of(output))
        return logits

    def _generate(self, arguments: dict[str, Any], script: Tensor) -> tuple[Tensor, Any]:
        """Return the logits (rows, seq, vocabulary) of the scripted tokens (rows, seq), and the rest of the answer."""
        output = self.model.generate(  # type: ignore[operator]
            **arguments,
            max_new_tokens=script.shape[1],
            do_sample=False,
            logits_processor=LogitsProcessorList([_Script(script)]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack([step.cpu() for step in output.logits], dim=1), output


class _Script(LogitsProcessor):
    """Lets a model write what is scripted."""

    def __init__(self, script: Tensor) -> None:
        self.tokens = iter(script.unbind(1))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (rows, vocabulary) of which the next token's are the highest."""
        written = torch.zeros_like(scores)
        return written.scatter_(1, next(self.tokens).to(scores.device)[:, None], 1.0)
