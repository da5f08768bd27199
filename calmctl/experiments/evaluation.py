"""Evaluation: a model generates, the task scores; the task sees records and completions, never the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.cpu import set_up_cpu
from calmctl.errors import UserError
from calmctl.experiments.scoring import METRICS_FILE, write_scores
from calmctl.experiments.tasks import TaskConfig
from calmctl.experiments.work_files import WorkFiles
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import Engine
from calmctl.inference.likelihood import bits_of
from calmctl.inference.prompt import FittedPrompts, OnOverflow, Prompt, fit
from calmctl.inference.stopping import written_otherwise
from calmctl.inference.throughput import Throughput
from calmctl.modeling.fingerprint import fingerprint
from calmctl.modeling.sources import load_model, load_tokenizer, quiet_libraries, source_sha256
from calmctl.ranks import Ranks, joined_ranks
from calmctl.runs import Run
from evals import Request, Scores

__all__ = ["METRICS_FILE", "EvalConfig", "run_evaluation", "run_evaluations"]


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
        threads: CPU threads; 0 = torch's default.
    """

    model: str = ""
    on_overflow: OnOverflow = "drop_shots"
    allow_different_base: bool = False
    trust_remote_code: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    bits_per_byte: bool = False
    threads: int = 0


class Subject:
    """The model that is evaluated, loaded when it is first needed and kept for the next task."""

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self.source, self.device = config.model, device
        self.allow_different_base, self.trust_remote_code = config.allow_different_base, config.trust_remote_code

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; raises UserError where the model has none."""
        return load_tokenizer(self.source, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> PreTrainedModel:
        """Return the model, in eval mode."""
        how = {"allow_different_base": self.allow_different_base, "trust_remote_code": self.trust_remote_code}
        model = load_model(self.source, **how).eval()
        if self.device.type == "cuda":
            model.to(self.device)
        return model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return the fingerprints of the model, and of the bases it was composed from."""
        identity = {"source": self.source, **fingerprint(self.model)}
        if bases := getattr(self.model.config, "bases", None):
            identity["bases"] = [base["fingerprint"] for base in bases]
        return identity


def run_evaluations(plan: Mapping[Path, EvalConfig], command: Sequence[str] = ()) -> None:
    """Evaluate one model on several tasks, each into a run directory of its own.

    Raises:
        UserError: see `run_evaluation`.
    """
    with joined_ranks() as ranks:
        subjects: dict[tuple[str, bool, bool], Subject] = {}
        for out, config in plan.items():
            key = config.model, config.allow_different_base, config.trust_remote_code
            subject = subjects.setdefault(key, Subject(config, ranks.device))
            run_evaluation(config, out, command, ranks, subject)


def run_evaluation(
    config: EvalConfig,
    out: Path,
    command: Sequence[str] = (),
    ranks: Ranks | None = None,
    subject: Subject | None = None,
) -> None:
    """Evaluate as configured into a run directory; return at once when it is complete.

    The processes of torchrun share the requests; the first of them owns the run, and scores.

    Raises:
        UserError: no model or data was given, or one cannot be loaded.
    """
    ranks = ranks or Ranks()
    subject = subject or Subject(config, ranks.device)
    if not ranks.is_first:
        if ranks.from_first():
            _generate(config, out, ranks, subject)
        return
    try:
        if not config.model:
            raise UserError("model is not set; give --model MODEL")
        inputs = {"model": source_sha256(config.model), "data": config.data_sha256()}
        run = Run.start(out, kind="eval", config=config, command=command, seed=config.decoding.seed, inputs=inputs)
    except BaseException:
        ranks.from_first(False)  # nobody waits for what will not come
        raise
    with run:
        if ranks.from_first(not run.is_complete):
            _evaluate(config, run, ranks, subject)


def _evaluate(config: EvalConfig, run: Run, ranks: Ranks, subject: Subject) -> None:
    records, work, about = _generate(config, run.path, ranks, subject, run)
    protocol: dict[str, Any] = {"decoding": config.decoding.name}
    stops = dict.fromkeys(stop for request in config.build_task().requests(records) for stop in request.stop)
    if otherwise := written_otherwise(subject.tokenizer, stops):
        protocol["stops_out_of_reach"] = otherwise
    bits = about.pop("bits_per_byte", None)
    write_scores(run, config, config.build_task(), records, work.gather(), about, protocol, bits)
    run.finish(total_parameters=sum(parameter.numel() for parameter in subject.model.parameters()))


def _generate(
    config: EvalConfig, out: Path, ranks: Ranks, subject: Subject, run: Run | None = None
) -> tuple[list[Any], WorkFiles, dict[str, Any]]:
    """Generate this process's share of what is missing; return when every process has done so.

    Returns:
        The task's records, everybody's work files, and what a result says about the generation.
    """
    set_up_cpu(config.threads)
    quiet_libraries()
    task = config.build_task()
    records = task.load(Path(config.dataset), config.limit or None)
    requests = task.requests(records)
    prompts = [_prompt(request, config.decoding) for request in requests]
    tokenizer = subject.tokenizer  # before the model: a missing one is told sooner
    fitted = fit(subject.model, tokenizer, prompts, config.on_overflow)
    work = WorkFiles(out, requests, subject.identity["weights_sha256"], ranks.index)
    finished = work.read()
    throughput = Throughput()
    if run is not None:
        throughput.on_batch = lambda so_far: _report(run, so_far, ranks)
    engine = Engine(subject.model, tokenizer, config.decoding, throughput)
    mine, bits = _share(fitted, ranks), None
    if config.bits_per_byte or not any(request.num_samples for request in requests):
        # Before the generation, which may take hours: references that do not fit are told at once.
        bits = _bits_per_byte(config, subject, requests, fitted, mine, ranks)
    for batch in engine.generate(fitted, finished.keys(), mine):
        work.append((sample.prompt_index, sample.index, sample.text) for sample in batch)
    seconds = throughput.seconds
    shares = ranks.gather((throughput.generated, throughput.tokens, throughput.batch_size, seconds))
    return records, work, _about(config, subject, fitted, shares) | {"bits_per_byte": bits}


def check_data(config: EvalConfig) -> None:
    """Read the task's data, for its errors alone: before hours of training rather than after them.

    Raises:
        DataError: it cannot be used.
        UserError: bits per byte are wanted, and the task has no references.
    """
    requests = config.build_task().requests(config.load_records())
    if config.bits_per_byte:
        _check_references(config, requests)


def _check_references(config: EvalConfig, requests: Sequence[Request]) -> None:
    if not any(request.reference for request in requests):
        raise UserError(f"bits_per_byte: the task {config.task} has no references; leave it out")


def _bits_per_byte(
    config: EvalConfig,
    subject: Subject,
    requests: Sequence[Request],
    fitted: FittedPrompts,
    mine: Sequence[int],
    ranks: Ranks,
) -> Scores:
    """Return the bits that the model needs for each byte of the references, over all and over each group of them.

    Raises:
        UserError: the task has no references.
    """
    _check_references(config, requests)
    prompts, texts = [fitted.prompts[place].whole for place in mine], [requests[place].reference for place in mine]
    found = bits_of(subject.model, subject.tokenizer, prompts, texts, config.decoding.batch_size)
    everyones = [pair for share in ranks.gather([(mine[index], bits) for index, bits in found]) for pair in share]
    sums: dict[str, list[float]] = {}
    for place, bits in everyones:
        for name in {"all", requests[place].group or "all"}:
            sums.setdefault(name, [0.0, 0.0])
            sums[name][0] += bits
            sums[name][1] += len(requests[place].reference.encode())
    ratios = {name: round(bits / size, 4) for name, (bits, size) in sorted(sums.items())}
    return Scores({"bits_per_byte": ratios.pop("all")}, len(everyones), {"bits_per_byte": ratios})


def _share(fitted: FittedPrompts, ranks: Ranks) -> list[int]:
    """Return which prompts are this process's: each gets as many long and short ones as the others."""
    places = range(len(fitted.prompts))
    by_length = sorted(places, key=lambda place: (fitted.prompts[place].max_new_tokens, len(fitted.ids[place])))
    return sorted(by_length[ranks.index :: ranks.count])


def _prompt(request: Request, decoding: Decoding) -> Prompt:
    count = min(request.max_new_tokens, decoding.max_new_tokens or request.max_new_tokens)
    return Prompt(request.prompt, count, request.stop, request.shots, request.num_samples, request.id)


def _report(run: Run, so_far: Throughput, ranks: Ranks) -> None:
    """Report the progress of the first process, in whose pace the others go."""
    speed = so_far.tokens_per_second * ranks.count
    total, done = so_far.total * ranks.count, so_far.done * ranks.count
    run.report_progress("generating", done, total, None, speed, so_far.eta_seconds)


def _about(
    config: EvalConfig, subject: Subject, fitted: FittedPrompts, shares: Sequence[tuple[int, int, int, float]]
) -> dict[str, Any]:
    """Return what a result says about the model and how it generated; speeds are those of the last attempt."""
    generated, tokens = sum(share[0] for share in shares), sum(share[1] for share in shares)
    seconds = max(share[3] for share in shares)
    model = subject.model
    asked = [prompt.max_new_tokens for prompt in fitted.prompts]
    return {
        "model": subject.identity,
        "generation": {
            "decoding": config.decoding.name,
            "seed": config.decoding.seed,
            "max_new_tokens": max(asked, default=0),
            "num_prompts": len(fitted.prompts),
            "num_samples": sum(prompt.num_samples for prompt in fitted.prompts),
            "num_shortened_prompts": fitted.num_shortened,
            "on_overflow": config.on_overflow,
            "batch_size": config.decoding.batch_size,
            "largest_batch": max(share[2] for share in shares),
            "processes": len(shares),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "attention": getattr(getattr(model, "anchor", model).config, "_attn_implementation", None),
            "first_prompt": fitted.prompts[0].whole if fitted.prompts else None,
        },
        "samples_per_second": round(generated / seconds, 1) if generated else None,
        "tokens_per_second": round(tokens / seconds, 1) if generated else None,
        "seconds": round(seconds, 2),
    }
