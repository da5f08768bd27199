"""The prompts of an evaluation, fitted to the model's context without reading weights; and the evaluation's plan."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.evaluation.config import PLACE, EvalConfig, answers_file, check_references
from calmctl.evaluation.models import Subject
from calmctl.evaluation.scoring import read_completions
from calmctl.inference.likelihood import encoded_pairs
from calmctl.inference.mixture import check_mixable
from calmctl.inference.prompt import FittedPrompts, fit
from calmctl.inference.writer import check_samples
from calmctl.modeling.chat import ChatTemplate
from calmctl.runs.record import METRICS_FILE, RUN_FILE
from calmctl.runs.run import Run
from calmctl.units import human_bytes
from data_builders.values import read_json
from evals import Request


@dataclass(frozen=True)
class EvalPrompts:
    """A task's records, requests and fitted prompts; `has_bits`: the likelihoods of references are measured."""

    records: Sequence[Any]
    requests: Sequence[Request]
    fitted: FittedPrompts
    has_bits: bool

    @property
    def references(self) -> list[str]:
        """Return the reference of each request, whose likelihood after the prompt is measured."""
        return [request.reference for request in self.requests]


def eval_prompts(config: EvalConfig, subject: Subject) -> EvalPrompts:
    """Read a task's data and fit its prompts to the model's context; no weights are read.

    Raises:
        UserError: the data cannot be used, or the model cannot be evaluated with these settings.
    """
    records = config.load_records()
    task = config.build_task()
    requests = task.requests(records)
    if task.measures_choices and (config.bits_per_byte or config.handover):
        setting = "bits_per_byte" if config.bits_per_byte else "handover"
        raise UserError(
            f"{setting}: this evaluation measures the likelihoods of choices and nothing else; leave it out"
        )
    if config.handover:
        requests = _with_answers(config, requests)
    requests = rendered(requests, subject.model.tokenizer)
    prompts = [_limited(request, config.decoding.max_new_tokens) for request in requests]
    check_samples(prompts, config.decoding)
    has_bits = config.bits_per_byte or not any(request.num_samples for request in requests)
    if has_bits:
        check_references(config, requests)
    model, tokenizer = subject.model, subject.model.tokenizer  # loaded first: fails sooner than the model
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
    found = EvalPrompts(records, requests, fitted, has_bits)
    for each in subject.all if has_bits else ():
        with _named("" if each is model else f"mix: {each.source}: "):
            encoded_pairs(each.shape, each.tokenizer, [prompt.text for prompt in fitted.prompts], found.references)
    return found


def rendered(requests: Sequence[Request], tokenizer: PreTrainedTokenizerBase) -> list[Request]:
    """Return the requests with conversations as the tokenizer's chat template writes them; without one, as they are.

    Raises:
        UserError: the template refuses a conversation.
    """
    if not tokenizer.chat_template or not any(request.messages for request in requests):
        return list(requests)
    template, found = ChatTemplate(tokenizer), []
    for request in requests:
        with _named(f"{request.id}: "):
            prompt = template.prompt(request.messages) if request.messages else request.prompt
        found.append(replace(request, prompt=prompt))
    return found


def _with_answers(config: EvalConfig, requests: Sequence[Request]) -> list[Request]:
    """Return the requests with another model's answer (its first sample) put before each prompt.

    Raises:
        UserError: the file is missing, is of another task or other data, or lacks an answer.
    """
    source = config.handover
    if any(request.messages for request in requests):
        raise UserError("handover: an answer cannot be put before a conversation; give rows of prompt and completion")
    if (metrics := Path(source) / METRICS_FILE).is_file():
        other = read_json(metrics)
        theirs = other.get("task"), (other.get("data") or {}).get("sha256")
        if theirs != (config.task, config.data_sha256):
            raise UserError(
                f"handover={source}: it answered {theirs[0]} over other data than this evaluation of {config.task}; "
                "name one of the same task and data"
            )
    answers = read_completions(answers_file(source))
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
def _named(what: str) -> Iterator[None]:
    """Prefix a UserError of the block with the model or request that it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}{error}") from None


def plan_evaluation(config: EvalConfig, out: Path, subject: Subject) -> dict[str, Any]:
    """Return the plan of an evaluation: prompts, tokens, memory, all settings; nothing is written or generated.

    Raises:
        UserError: anything that the run would reject before it reads weights.
    """
    config.check_inputs()
    inputs = config.inputs() if (out / RUN_FILE).exists() else {}  # otherwise there are none to compare them with
    existing = Run.look(out, kind="eval", config=config, inputs=inputs)
    settings = {**to_dict(config), "options": to_dict(config.build_task())}
    if existing is not None and existing.is_complete:
        return {"out": str(out), "run": "complete: nothing is left to do", **settings}
    asked = eval_prompts(config, subject)
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
        "measures_references": asked.has_bits,
        "memory_bytes": size,
        "memory": human_bytes(size),
        "seed": config.decoding.seed,
        **settings,
    }


def _limited(request: Request, most: int) -> Request:
    """Return the request with at most `most` new tokens; 0 = the request's own limit."""
    return replace(request, max_new_tokens=most) if 0 < most < request.max_new_tokens else request
