"""Decoding: seeded sampling per row, and the check for finite logits."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from calmctl.errors import CalmctlError
from calmctl.inference.prompt import vocabulary_size
from calmctl.inference.settings import Decoding
from calmctl.modeling.chat import end_of_turn_id


def seeded_sampling(decoding: Decoding, seeds: Sequence[int], device: torch.device) -> "SeededSampling | None":
    """Return what samples the next token of each row, from one seed per row; None if decoding is deterministic."""
    return SeededSampling(decoding.temperature, decoding.top_p, seeds, device) if decoding.samples else None


class SeededSampling(LogitsProcessor):
    """Turns greedy search into sampling, with one random generator per row.

    The argmax of log-probabilities plus Gumbel noise is an exact draw from the distribution. So a row's tokens depend
    on its seed and its logits only, not on other rows.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.generators = [self.generators[place] for place in places]

    def join(self, other: "SeededSampling") -> None:
        """Append the rows of another batch."""
        self.generators += other.generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (batch, vocabulary) scaled by the temperature, cut to the nucleus, plus noise."""
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
    """Records which rows got logits that choose no token (NaN, inf); changes nothing, never waits for the device."""

    def __init__(self) -> None:
        self._bad: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) unchanged; single tokens may be -inf (forbidden)."""
        bad = ~scores.amax(-1).isfinite()
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def first_bad(self) -> int | None:
        """Return the first recorded row, if any, and forget all."""
        bad, self._bad = self._bad, None
        return None if bad is None or not bool(bad.any()) else int(bad.nonzero()[0])


class NotFiniteError(CalmctlError):
    """A model computes NaN or infinite values.

    Attributes:
        row: index of the prompt.
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
    """Temporarily put a model into eval mode and drop its generation defaults (penalties, ...) except special tokens.

    Make the LM head's input contiguous, too. The hidden states that models slice (the last position of each prompt) are
    not, and without gradients torch would then copy the head's weights for every row: gigabytes, and a tenth of the
    time of short answers.
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
    """Return the ids that end what a model writes: those of text, and that of an answer in its chat template."""
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id, end_of_turn_id(tokenizer)] if i is not None}


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id for masked positions: any that the model has will do, as they are never attended to.

    Tokenizers often have a padding token for which the model has no embedding.
    """
    num_known = vocabulary_size(model)
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None and i < num_known), 0)
