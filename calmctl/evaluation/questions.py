"""Questions: what a task asks of a model, made sure of before any weights are read; the plan of an evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.evaluation.models import Models, Subject
from calmctl.evaluation.scoring import read_completions
from calmctl.evaluation.tasks import TaskConfig
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import check_samples
from calmctl.inference.likelihood import encoded_pairs
from calmctl.inference.mixture import check_greedy, check_mixable
from calmctl.inference.prompt import FittedPrompts, OnOverflow, fit
from calmctl.modeling.bases.sources import source_sha256
from calmctl.runs.record import METRICS_FILE, PREDICTIONS_FILE
from calmctl.runs.run import Run
from calmctl.schema import meaning
from data_builders.files import sha256_of
from data_builders.values import read_json
from evals import Request

PLACE = "{answer}"


@dataclass(frozen=True)
class EvalConfig(TaskConfig):
    """Generate and score a task.

    Attributes:
        model: a run, folder or hub id.
        on_overflow: what happens to a prompt that exceeds the model's context: `drop_shots` (the first ones; the
            question is kept) or `fail`.
        allow_different_base: evaluate a composed model although its bases are not the recorded ones.
        trust_remote_code: run the code that lies beside the model, where that needs it.
        bits_per_byte: also measure how many bits the model needs for the references of the task (`bits_per_byte`): a
            figure that moves long before the others do.
        handover: a finished evaluation of the same questions by another model, or a file of its completions: its answer
            stands before every question.
        handover_text: how; `{answer}` in it becomes the answer.
        mix: another model, which writes together with this one: the average of both chances decides about every next
            byte, so tokenizers may differ.
        mix_weight: the other one's share of the average.
        threads: CPU threads; 0 = torch's default.
    """

    model: str = ""
    on_overflow: OnOverflow = "drop_shots"
    allow_different_base: bool = False
    trust_remote_code: bool = field(default=False, metadata=meaning("free"))
    decoding: Decoding = field(default_factory=Decoding)
    bits_per_byte: bool = False
    handover: str = ""
    handover_text: str = "Another model's answer: {answer}\n\n"
    mix: str = ""
    mix_weight: float = 0.5
    threads: int = field(default=0, metadata=meaning(may_differ=True))

    def __post_init__(self) -> None:
        """Raise UserError or ValueError for settings out of range."""
        super().__post_init__()
        if self.threads < 0:
            raise ValueError(f"threads={self.threads} must not be negative (0 = torch's default)")
        if PLACE not in self.handover_text:
            raise ValueError(f"handover_text={self.handover_text!r} has no {PLACE}, where the answer stands")
        if not 0 <= self.mix_weight <= 1:
            raise ValueError(f"mix_weight={self.mix_weight} must be between 0 and 1 (the other model's share)")
        if self.mix:
            check_greedy(self.decoding)

    def inputs(self) -> dict[str, str]:
        """Return the checksums of what the evaluation reads, by name; raises UserError for what was not given."""
        if not self.model:
            raise UserError("model is not set; give --model MODEL")
        read = {"model": source_sha256(self.model), "data": self.data_sha256}
        if self.mix:
            read["mix"] = source_sha256(self.mix)
        return read | {"handover": sha256_of(_answers_file(self.handover))} if self.handover else read

    def subject(self, models: Models) -> Subject:
        """Return what answers."""
        how = self.allow_different_base, self.trust_remote_code
        return Subject(models.of(self.model, *how), models.of(self.mix, *how) if self.mix else None)


@dataclass(frozen=True)
class Questions:
    """What a task asks: its records, their requests, and the prompts as the model reads them."""

    records: Sequence[Any]
    requests: Sequence[Request]
    fitted: FittedPrompts
    has_bits: bool

    @property
    def references(self) -> list[str]:
        """Return the text whose likelihood is measured after each prompt."""
        return [request.reference for request in self.requests]


def questions(config: EvalConfig, subject: Subject) -> Questions:
    """Read a task's data and fit its prompts into the model's context; no weights are read.

    Raises:
        UserError: the data cannot be used.
        UserError: the model cannot be evaluated, or not be asked so.
    """
    records = config.load_records()
    requests = config.build_task().requests(records)
    if config.handover:
        requests = _with_answers(config, requests)
    prompts = [_limited(request, config.decoding.max_new_tokens) for request in requests]
    check_samples(prompts, config.decoding)
    has_bits = config.bits_per_byte or not any(request.num_samples for request in requests)
    if has_bits:
        _check_references(config, requests)
    model, tokenizer = subject.model, subject.model.tokenizer  # before the model: a missing one is told sooner
    if subject.other:
        for each in subject.all:
            check_mixable(each.shape, each.tokenizer, each.source)
        with _named(f"mix: {subject.other.source}: "):
            fitted = fit(subject.other.shape, subject.other.tokenizer, prompts, config.on_overflow)
        fitted = fit(model.shape, tokenizer, fitted.prompts, config.on_overflow)
        num_shortened = sum(one.shots != other.shots for one, other in zip(prompts, fitted.prompts, strict=True))
        fitted = replace(fitted, num_shortened=num_shortened)
    else:
        fitted = fit(model.shape, tokenizer, prompts, config.on_overflow)
    found = Questions(records, requests, fitted, has_bits)
    for each in subject.all if has_bits else ():
        with _named("" if each is model else f"mix: {each.source}: "):
            encoded_pairs(each.shape, each.tokenizer, [prompt.text for prompt in fitted.prompts], found.references)
    return found


def _answers_file(source: str) -> Path:
    """Return the file of completions that is meant: one, or that of a finished evaluation."""
    path = Path(source)
    return path / PREDICTIONS_FILE if path.is_dir() else path


def _with_answers(config: EvalConfig, requests: Sequence[Request]) -> list[Request]:
    """Return requests before whose question stands what another model answered it; of several samples the first counts.

    Raises:
        UserError: there is no such file, it is of another task or other data, or a question has no answer in it.
    """
    source = config.handover
    if (metrics := Path(source) / METRICS_FILE).is_file():
        other = read_json(metrics)
        theirs = other.get("task"), (other.get("data") or {}).get("sha256")
        if theirs != (config.task, config.data_sha256):
            raise UserError(
                f"handover={source}: it answered {theirs[0]} over other data than this evaluation of {config.task}; "
                "name one of the same task and data"
            )
    answers = read_completions(_answers_file(source))
    if missing := [request.id for request in requests if not answers.get(request.id)]:
        raise UserError(
            f"handover={source}: no answer to {missing[0]!r} ({len(missing)} of {len(requests)} questions have none); "
            "name an evaluation of the same task, data and options"
        )
    return [
        replace(request, prompt=config.handover_text.replace(PLACE, answers[request.id][0].strip()) + request.prompt)
        for request in requests
    ]


@contextmanager
def _named(model: str) -> Iterator[None]:
    """Say in an error of the block which of two models it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{model}{error}") from None


def plan_evaluation(config: EvalConfig, out: Path, subject: Subject) -> dict[str, Any]:
    """Return what an evaluation would do, with all options of its task; nothing is written or generated.

    Raises:
        UserError: what the run would refuse before it reads weights.
    """
    existing = Run.look(out, kind="eval", config=config, inputs=config.inputs())
    settings = {**to_dict(config), "options": to_dict(config.build_task())}
    if existing is not None and existing.is_complete:
        return {"out": str(out), "run": "complete: nothing is left to do", **settings}
    asked = questions(config, subject)
    prompts = asked.fitted.prompts
    size = sum(p.numel() * p.element_size() for each in subject.all for p in each.shape.parameters())
    return {
        "out": str(out),
        "run": "new" if existing is None else "goes on with what is missing",
        "prompts": len(prompts),
        "shortened_prompts": asked.fitted.num_shortened,
        "samples": sum(prompt.num_samples for prompt in prompts),
        "prompt_tokens": sum(map(len, asked.fitted.ids)),
        "new_tokens_at_most": sum(prompt.max_new_tokens * prompt.num_samples for prompt in prompts),
        "measures_bits_per_byte": asked.has_bits,
        "memory_bytes": size,
        "memory": f"{size / 2**30:.2f} GiB",
        "seed": config.decoding.seed,
        **settings,
    }


def check_data(config: EvalConfig) -> None:
    """Read the task's data, for its errors alone: before hours of training rather than after them.

    Raises:
        UserError: it cannot be used.
        UserError: bits per byte are wanted, and the task has no references.
    """
    requests = config.build_task().requests(config.load_records())
    if config.bits_per_byte:
        _check_references(config, requests)


def _check_references(config: EvalConfig, requests: Sequence[Request]) -> None:
    if not any(request.reference for request in requests):
        raise UserError(f"bits_per_byte: the task {config.task} has no references; leave it out")


def _limited(request: Request, most: int) -> Request:
    """Return a request for no more than so many new tokens, if that is a number."""
    return replace(request, max_new_tokens=most) if 0 < most < request.max_new_tokens else request
