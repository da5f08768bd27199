"""Reading: which prompts a model can complete in one batch, found by testing it on a few tokens.

A completion must be the one that the model generates after its prompt alone. Most models ignore padding and continue
from caches; some do neither (a recurrent state runs through padding), and only a test can tell.
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
from calmctl.inference.growing_cache import SharedPrefix, growing_cache, most_places
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

# Token counts of the probe: shared prefix, short prompt (so with much padding), long prompt, half a completion.
PREFIX, SHORT, LONG, STRETCH = 2, 4, 14, 2
# Largest allowed deviation of 16-bit logits if those in float32 agree, as a share of their spread.
MOST_APART = 0.5


@dataclass(frozen=True)
class Reading:
    """How a model reads the prompts that it completes.

    Attributes:
        together: which rows may share a batch: any (left padding), those of equal length, or none.
        most_places: how many places, padding included, rows may take that continue from a given cache, so that ended
            rows can be dropped, others can take their places, and shared prefixes are read once; 0 = they cannot.
    """

    together: Together
    most_places: int = 0

    def __str__(self) -> str:
        """Return the reading in words, for results."""
        rows = {"padded": "padded batches", "equal": "batches of equal lengths", "alone": "one row at a time"}
        return rows[self.together] + (", continued caches" if self.most_places else "")


_findings: Findings[Reading] = Findings()


def reading_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reading:
    """Return how a model can read; tested once, and again when its bridges have been trained.

    Raises:
        UserError: the model cannot complete a single prompt, or its logits differ from call to call.
        CalmctlError: memory does not suffice for a few tokens.
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
    """Compares the logits of scripted completions, made in several ways, with those of each prompt alone."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.bases = model.bases() if isinstance(model, PartsModel) else [model]
        self.allowed = tolerance(self.bases)
        ids = probe_ids(self.bases, 3, LONG + 2 * STRETCH, without=[pad_id])
        self.script = ids[:, LONG:]
        long, other = ids[0, :LONG].tolist(), ids[1, :LONG].tolist()
        # The first prompt is short and shares a prefix with the second; the third is as long as the second.
        self.prompts = [long[:PREFIX] + other[: SHORT - PREFIX], long, other]

    @torch.inference_mode()
    def reading(self) -> Reading:
        """Return the most efficient way of reading that gives the right logits."""
        name = type(self.model).__name__
        with failing_as(f"{name} cannot complete a prompt"):
            alone = [self._alone(place) for place in range(3)]
            again = self._alone(0)
        if not all(logits.amax(-1).isfinite().all() for logits in alone):
            return Reading("alone")  # the prompts will raise NotFiniteError
        if deviation(again, alone[0]) > self.allowed:
            raise UserError(f"{name} computes other logits each time that it reads a prompt: figures would be chance")
        if self._is_right(self._in_stretches, alone):
            return Reading("padded", most_places(self.model))
        if self._is_right(self._padded, alone):
            return Reading("padded")
        if self._is_right(self._equal, alone[1:]):
            return Reading("equal")
        return Reading("alone")

    @torch.inference_mode()
    def allows(self, reading: Reading) -> bool:
        """Tell whether a way of reading found in float32 also gives roughly the right logits in 16 bits."""
        if reading.together == "alone":
            return True
        way, places = (self._padded, (0, 1, 2)) if reading.together == "padded" else (self._equal, (1, 2))
        if reading.most_places:
            way = self._in_stretches
        self.allowed = MOST_APART
        return self._is_right(way, [self._alone(place) for place in places])

    def _is_right(self, way: Callable[[], Tensor], alone: Sequence[Tensor]) -> bool:
        return agree(way, torch.cat(list(alone)), self.allowed)

    def _alone(self, place: int) -> Tensor:
        """Complete one prompt in a batch of its own."""
        ids = torch.tensor([self.prompts[place]], device=self.model.device)
        return self._generate({"input_ids": ids}, self.script[place : place + 1])[0]

    def _in_stretches(self) -> Tensor:
        """Complete two prompts from their shared prefix, in two calls; in between, swap them and let a third join."""
        if most_places(self.model) < LONG + 2 * STRETCH:
            return torch.empty(0)
        device = self.model.device
        prefix = SharedPrefix(self.model, self.prompts[0][:PREFIX])
        rows = Rows(self.prompts[:2], self.pad_id, device, prefix.for_rows(2))
        other = Rows(self.prompts[2:], self.pad_id, device, growing_cache(self.model))
        if getattr(self.model.config, "aug_reads", None) == "prompt":
            # A second call would take the completion for prompt.
            return torch.cat([self._continue(rows, self.script[:2]), self._continue(other, self.script[2:])])
        begun = [self._continue(rows, self.script[:2, :STRETCH]), self._continue(other, self.script[2:, :STRETCH])]
        rows.keep([1, 0])
        rows.join(other)
        order = [1, 0, 2]
        return torch.cat([torch.cat(begun), self._continue(rows, self.script[order, STRETCH:])[order]], dim=1)

    def _padded(self) -> Tensor:
        return self._continue(Rows(self.prompts, self.pad_id, self.model.device), self.script)

    def _equal(self) -> Tensor:
        return self._continue(Rows(self.prompts[1:], self.pad_id, self.model.device), self.script[1:])

    def _continue(self, rows: Rows, script: Tensor) -> Tensor:
        logits, output = self._generate(rows.arguments(self.model), script)
        rows.extend(output.sequences, cache_of(output))
        return logits

    def _generate(self, arguments: dict[str, Any], script: Tensor) -> tuple[Tensor, Any]:
        """Return the logits (rows, seq, vocabulary) at the scripted tokens (rows, seq), and `generate`'s output."""
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
    """Makes a model generate the scripted tokens."""

    def __init__(self, script: Tensor) -> None:
        self.tokens = iter(script.unbind(1))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (rows, vocabulary) that are highest at the next scripted token."""
        written = torch.zeros_like(scores)
        return written.scatter_(1, next(self.tokens).to(scores.device)[:, None], 1.0)
