"""Decoding: how tokens are chosen, and sampling that depends on nothing but its seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from calmctl.errors import UserError


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
    seed: int = 0
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
