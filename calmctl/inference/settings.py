"""The settings by which tokens are chosen. Loads without torch."""

from dataclasses import dataclass, field
from typing import Literal

from calmctl.errors import UserError
from calmctl.schema import meaning

OnOverflow = Literal["drop_shots", "fail"]


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        batch_size: completions generated together; halved whenever memory does not suffice.
        num_beams: 1 = no beam search.
        temperature: 0 = greedy; above 0, sampling.
        top_p: probability mass of nucleus sampling.
        seed: of sampling.
        max_new_tokens: upper limit, whatever the task asks for; 0 = the task's own.
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
        """Return whether tokens are sampled."""
        return self.temperature > 0

    @property
    def name(self) -> str:
        """Return the decoding in words, for results."""
        if self.samples:
            return f"sampling(temperature={self.temperature}, top_p={self.top_p}, seed={self.seed})"
        return "greedy" if self.num_beams == 1 else f"beam({self.num_beams})"


def check_greedy(decoding: Decoding) -> None:
    """Raise UserError unless decoding is greedy."""
    if decoding.name != "greedy":
        raise UserError(f"mix: two models write together greedily, not by {decoding.name} decoding; leave it out")
