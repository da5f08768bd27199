"""Decoding: how tokens are chosen, by our settings alone, and sampling that depends on nothing but its seed."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TopPLogitsWarper,
)

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.prompt import vocabulary_size
from calmctl.schema import meaning


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        batch_size: completions generated together; halved whenever memory does not suffice.
        num_beams: 1 = no beam search.
        temperature: 0 = greedy; above, sampling.
        top_p: nucleus of sampling.
        seed: of sampling.
        max_new_tokens: generate no more than this many, whatever the task asks for; 0 = as many as it asks for.
    """

    batch_size: int = 64
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = field(default=0, metadata=meaning(may_differ=True))
    max_new_tokens: int = 0

    def __post_init__(self) -> None:
        """Raise UserError for settings out of range."""
        for name in ("batch_size", "num_beams"):
            if getattr(self, name) < 1:
                raise UserError(f"decoding.{name}={getattr(self, name)} must be at least 1")
        if self.temperature > 0 and self.num_beams > 1:
            raise UserError(f"decoding.num_beams={self.num_beams} needs decoding.temperature=0 (beams do not sample)")
        if self.temperature < 0:
            raise UserError(f"decoding.temperature={self.temperature} must not be negative (0 = greedy)")
        if not 0 < self.top_p <= 1:
            raise UserError(f"decoding.top_p={self.top_p} must be above 0 and at most 1 (1 = all tokens)")
        if self.max_new_tokens < 0:
            raise UserError(f"decoding.max_new_tokens={self.max_new_tokens} must not be negative (0 = the task's)")

    @property
    def samples(self) -> bool:
        """Return whether there is chance in it."""
        return self.temperature > 0

    @property
    def name(self) -> str:
        """Return what a result says about the decoding."""
        if self.samples:
            return f"sampling(temperature={self.temperature}, top_p={self.top_p}, seed={self.seed})"
        return "greedy" if self.num_beams == 1 else f"beam({self.num_beams})"

    def arguments(
        self, seeds: Sequence[int], device: torch.device
    ) -> tuple[dict[str, object], "SeededSampling | None"]:
        """Return arguments of `generate`, and the processor that draws, if any; `seeds` are those of the rows."""
        if not self.samples:
            return {"do_sample": False, "num_beams": self.num_beams}, None
        # Sampling is a processor's business: `generate` would draw for all rows from one generator.
        return {"do_sample": False}, SeededSampling(self.temperature, self.top_p, seeds, device)


class SeededSampling(LogitsProcessor):
    """Turns greedy search into sampling, each row with a generator of its own.

    The token with the highest log-probability plus Gumbel noise is an exact draw from the distribution. So what a row
    gets depends on its seed and its logits only: not on the rows beside it, nor on those before it.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def keep(self, places: Sequence[int]) -> None:
        """Leave out all rows but these."""
        self.generators = [self.generators[place] for place in places]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (batch, vocabulary) at this temperature, within the nucleus, with noise."""
        scores = scores.float() / self.temperature
        if self.nucleus is not None:
            scores = self.nucleus(input_ids, scores)
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()


def seed_of(seed: int, prompt_id: str, sample_index: int) -> int:
    """Return the seed of one sample of a prompt."""
    digest = hashlib.sha256(f"{seed}\0{sample_index}\0{prompt_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class FiniteLogits(LogitsProcessor):
    """Notes which rows got logits that choose nothing; it changes none, and waits for no device."""

    def __init__(self) -> None:
        self._bad: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary); single tokens may be forbidden (minus infinity)."""
        bad = ~scores.amax(-1).isfinite()
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def first_bad(self) -> int | None:
        """Return the first row that got such logits, if any, and forget about all."""
        bad, self._bad = self._bad, None
        return None if bad is None or not bool(bad.any()) else int(bad.nonzero()[0])


class NotFiniteError(CalmctlError):
    """A model computes what is no number.

    Attributes:
        row: which of the prompts it was asked it happened at.
    """

    def __init__(self, model: PreTrainedModel, what: str, row: int, name: str = "") -> None:
        self.model, self.what, self.row = model, what, row
        dtype = str(model.dtype).removeprefix("torch.")
        advice = "load it in bfloat16 or float32" if model.dtype is torch.float16 else "its weights may be damaged"
        super().__init__(
            f"prompt {name or row + 1}: the {what} of {type(model).__name__} are not finite ({dtype} on "
            f"{model.device.type}); {advice}"
        )

    def named(self, names: Sequence[str]) -> "NotFiniteError":
        """Return the error with the name of the prompt."""
        return NotFiniteError(self.model, self.what, self.row, names[self.row])


@contextmanager
def ready_to_write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Make a model decode as we say: in eval mode, of its own settings (penalties, ...) with its special tokens only.

    Its head gets its input in one piece. What models cut out of their states (the last position of each prompt) is
    none, and without gradients torch then makes a copy of the head's weights for every row: gigabytes, and a tenth of
    the time of short answers.
    """
    own, was_training = model.generation_config, model.training
    model.eval()
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(_eos_ids(own, tokenizer)) or None,
        pad_token_id=_pad_id(model, tokenizer),
    )
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(_in_one_piece) if head is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        model.generation_config = own
        model.train(was_training)


def _in_one_piece(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in args)


def _eos_ids(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id to fill masked positions with: any that the model has will do, for they are never attended.

    Tokenizers often have a padding token that was added to them and never to the model.
    """
    num_known = vocabulary_size(model)
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None and i < num_known), 0)
