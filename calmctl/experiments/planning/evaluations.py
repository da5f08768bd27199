"""Estimate the cost of an evaluation: number and length of its prompts, and the FLOPs of answering them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.training.plan import PlannedModel
from evals import Request

# English has some 4 bytes a token, code 3, low-resource languages 2 to 3.
BYTES_PER_TOKEN = 3.0
# Estimated minimum of one decoding step in one block: Python and some fifteen kernel launches.
SECONDS_PER_BLOCK = 0.8e-3


@dataclass(frozen=True)
class EvaluationPlan:
    """The prompts of a task, which are the same for every model; tokens are estimated from bytes.

    Attributes:
        prompts: number of prompts; None = not known yet, `reason` says why.
        read: tokens of prompts and references; worked examples that prompts share count once.
        written: maximum number of generated tokens.
        scored: tokens of references (bits per byte).
        length: mean tokens of a prompt with its worked examples.
        decoding_steps: maximum number of forward passes of a batch, each for one token.
    """

    prompts: int | None = None
    read: int = 0
    written: int = 0
    scored: int = 0
    length: int = 0
    decoding_steps: int = 0
    reason: str = ""

    def flops(self, model: PlannedModel) -> float:
        """Return the FLOPs of generation and likelihoods; the LM head runs on written and scored tokens only."""
        length = min(self.length, model.context)
        below, whole = (model.flops.forward(length, with_head=with_head) for with_head in (False, True))
        return self.read * below + self.written * whole + self.scored * (whole - below)

    def decoding_seconds(self, model: PlannedModel, bandwidth: float) -> float:
        """Return a lower bound of the decoding time, from reading the weights and launching kernels.

        Args:
            bandwidth: memory bandwidth in bytes/s.
        """
        return self.decoding_steps * max(model.weight_bytes / bandwidth, model.flops.depth * SECONDS_PER_BLOCK)


class EvaluationPlanner:
    """Plans evaluations; counts the prompts of each once, for all models."""

    def __init__(self) -> None:
        self._known: dict[str, EvaluationPlan] = {}

    def plan(self, config: EvalConfig) -> EvaluationPlan:
        """Return the plan of an evaluation; without figures if its data is not on disk or cannot be used."""
        key = str({**to_dict(config), "model": ""})
        if key not in self._known:
            self._known[key] = _planned(config)
        return self._known[key]


def _planned(config: EvalConfig) -> EvaluationPlan:
    if not Path(config.dataset).exists():
        return EvaluationPlan(reason="its data is not here yet")
    try:
        requests = config.build_task().requests(config.load_records())
    except UserError as error:
        return EvaluationPlan(reason=str(error))
    asked = [request for request in requests if request.num_samples]
    limit = config.decoding.max_new_tokens
    new_tokens = [min(request.max_new_tokens, limit or request.max_new_tokens) for request in asked]
    read = sum(_tokens(request.prompt) for request in asked)
    read += sum(_tokens("".join(shots)) for shots in {request.shots for request in asked})
    scored = [request for request in requests if request.reference and (config.bits_per_byte or not asked)]
    references = sum(_tokens(request.reference) for request in scored)
    return EvaluationPlan(
        prompts=len(requests),
        read=read + sum(map(_whole, scored)) + references,
        written=sum(count * request.num_samples for count, request in zip(new_tokens, asked, strict=True)),
        scored=references,
        length=max(1, sum(map(_whole, requests)) // max(1, len(requests))),
        decoding_steps=-(-len(asked) // config.decoding.batch_size) * max(new_tokens, default=0),
    )


def _whole(request: Request) -> int:
    return _shots(request.shots) + _tokens(request.prompt)


@cache
def _shots(shots: tuple[str, ...]) -> int:
    return _tokens("".join(shots))


def _tokens(text: str) -> int:
    return round(len(text.encode()) / BYTES_PER_TOKEN)
