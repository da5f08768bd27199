"""Run evaluations: the model generates, the task scores; the task sees records and completions, never the model."""

import hashlib
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from calmctl.errors import CalmctlError
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.models import ModelError, Models, Subject
from calmctl.evaluation.prompts import EvalPrompts, eval_prompts, plan_evaluation
from calmctl.evaluation.scoring import write_scores
from calmctl.evaluation.work_files import WorkFiles
from calmctl.inference.decoding import NotFiniteError
from calmctl.inference.generation import Engine
from calmctl.inference.mixture import Mixture
from calmctl.inference.prompt import FittedPrompts
from calmctl.inference.reading import reading_of
from calmctl.inference.text import written_otherwise
from calmctl.inference.writer import Throughput, Writer
from calmctl.modeling.chat import ChatTemplate
from calmctl.processes.cpu import set_up_cpu
from calmctl.processes.ranks import Ranks, joined_ranks
from calmctl.runs.run import Run
from evals import Scores


def run_evaluations(plan: Mapping[Path, EvalConfig], command: Sequence[str] = ()) -> dict[Path, str]:
    """Evaluate one model on several tasks, each in its own run directory; go on after a task that fails.

    Returns:
        Run directory -> error message of each failed task. If the plan has one task only, its error is raised.

    Raises:
        UserError: the model cannot be loaded; for a single task see `run_evaluation`.
    """
    with joined_ranks() as ranks:
        models, failed = Models(ranks.device), dict[Path, str]()
        for out, config in plan.items():
            with going_on(out, failed, among=len(plan)):
                run_evaluation(config, out, command, ranks, models)
    return failed


def plan_evaluations(plan: Mapping[Path, EvalConfig]) -> tuple[list[dict[str, Any]], dict[Path, str]]:
    """Return the plan of each evaluation (see `plan_evaluation`), and the error messages of those that would fail."""
    models, failed, planned = Models(torch.device("cpu")), dict[Path, str](), []
    for out, config in plan.items():
        with going_on(out, failed, among=len(plan)):
            planned.append(plan_evaluation(config, out, models.subject(config)))
    return planned, failed


@contextmanager
def going_on(out: Path, failed: dict[Path, str], among: int) -> Iterator[None]:
    """Record the error of the block, one of several evaluations, in `failed`; print tracebacks of internal errors.

    Raises:
        ModelError: the model cannot be loaded, so that all evaluations fail.
        Exception: any error, if the block is the only evaluation (`among` is 1).
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if among == 1:
            raise
        if not isinstance(error, CalmctlError):
            traceback.print_exc()
        failed[out] = str(error) or type(error).__name__


def run_evaluation(
    config: EvalConfig,
    out: Path,
    command: Sequence[str] = (),
    ranks: Ranks | None = None,
    models: Models | None = None,
) -> None:
    """Evaluate as configured into the run directory `out`; return at once if the run is complete.

    The processes of torchrun share the requests; rank 0 owns the run and scores.

    Raises:
        UserError: model or data are not set or cannot be loaded.
    """
    ranks = ranks or Ranks()
    subject = (models or Models(ranks.device)).subject(config)
    if not ranks.is_first:
        if ranks.from_first():
            _generate(config, out, ranks, subject)
        return
    try:
        inputs = config.inputs()
        run = Run.start(out, kind="eval", config=config, command=command, seed=config.decoding.seed, inputs=inputs)
    except BaseException:
        ranks.from_first(False)  # the other ranks wait for this broadcast
        raise
    with run:
        if ranks.from_first(not run.is_complete):
            _evaluate(config, run, ranks, subject)


def _evaluate(config: EvalConfig, run: Run, ranks: Ranks, subject: Subject) -> None:
    asked, work, about = _generate(config, run.path, ranks, subject, run)
    protocol: dict[str, Any] = {}
    prompts: dict[str, str] = {}
    if any(request.num_samples for request in asked.requests):
        protocol["decoding"] = config.decoding.name
    if config.handover:
        protocol["handover"] = config.handover_text
    if any(request.messages for request in asked.requests):
        tokenizer = subject.model.tokenizer
        template = tokenizer.chat_template
        protocol["chat_template"] = hashlib.sha256(str(template).encode()).hexdigest() if template else None
        if template and (date := ChatTemplate(tokenizer).date):
            protocol["chat_date"] = date
        prompts = {request.id: request.prompt for request in asked.requests}
    if subject.other:  # a mixture decodes bytes, so it can write every stop string
        protocol |= {"read_in": "bytes, with another model", "mixed_with": config.mix, "mix_weight": config.mix_weight}
    else:
        protocol["read_in"] = str(reading_of(subject.model.loaded, subject.model.tokenizer))
        stops = dict.fromkeys(stop for request in asked.requests for stop in request.stop)
        if otherwise := written_otherwise(subject.model.tokenizer, stops):
            protocol["stops_out_of_reach"] = otherwise
    measured = about.pop("measured")
    task = config.build_task()
    write_scores(run, config, task, asked.records, work.gather(), about, protocol, measured, prompts)
    run.finish(total_parameters=subject.num_parameters)
    work.forget_bits()


def _generate(
    config: EvalConfig, out: Path, ranks: Ranks, subject: Subject, run: Run | None = None
) -> tuple[EvalPrompts, WorkFiles, dict[str, Any]]:
    """Generate this rank's share of the missing samples; return when all ranks are done.

    Returns:
        The prompts, the work files of all ranks, and the facts about the generation for `metrics.json`.

    Raises:
        CalmctlError: another process failed.
    """
    made, failure = None, None
    try:
        made = _made(config, out, ranks, subject, run)
    except Exception as error:
        if ranks.count == 1:
            raise
        failure = error
    # All ranks reach this collective call, even after a failure: otherwise the others would wait forever.
    shares = ranks.gather(made[2] if made else None)
    if failure is not None:
        raise failure
    if made is None or None in shares:
        raise CalmctlError(f"process {shares.index(None)} failed; it says why")
    asked, work, _ = made
    measured = _measured(config, asked, shares) if asked.has_bits else None
    return asked, work, _about(config, subject, asked.fitted, shares) | {"measured": measured}


@dataclass(frozen=True)
class _Share:
    """The work of one rank: completions, tokens, largest batch, seconds, and the bits of references by their index."""

    generated: int
    tokens: int
    largest_batch: int
    seconds: float
    bits: Mapping[int, float]


def _made(
    config: EvalConfig, out: Path, ranks: Ranks, subject: Subject, run: Run | None
) -> tuple[EvalPrompts, WorkFiles, _Share]:
    """Do this rank's share, without waiting for the other ranks."""
    set_up_cpu(config.threads)
    asked = eval_prompts(config, subject)
    work = WorkFiles(out, asked.requests, subject.weights_sha256, ranks.index)
    finished = work.read()
    throughput = Throughput()
    if run is not None:
        throughput.on_batch = lambda so_far: _report(run, so_far, ranks)
    engine = _engine(config, subject, throughput)
    mine = _share(asked.fitted, ranks)
    bits = _bits(asked, work, engine, mine, run, config.decoding.batch_size) if asked.has_bits else {}
    for batch in engine.generate(asked.fitted, finished.keys(), mine):
        work.append((sample.prompt_index, sample.index, sample.text) for sample in batch)
    done = throughput
    return asked, work, _Share(done.generated, done.tokens, done.batch_size, done.seconds, bits)


def _bits(
    asked: EvalPrompts, work: WorkFiles, engine: Writer, mine: Sequence[int], run: Run | None, at_once: int
) -> dict[int, float]:
    """Return the bits of the references of some requests, by request index; those of an earlier attempt are reused.

    Args:
        run: where progress is reported, if anywhere.
        at_once: how many are written to disk together.
    """
    known = work.read_bits()
    left = [place for place in mine if place not in known]
    texts = [asked.requests[place].reference for place in left]
    found = engine.bits_of([asked.fitted.prompts[place].text for place in left], texts)
    began, done = time.monotonic(), 0
    try:
        while some := [(left[index], value) for index, value in islice(found, at_once)]:
            work.append_bits(some)
            known.update(some)
            done += len(some)
            if run is not None:
                eta = (time.monotonic() - began) / done * (len(left) - done)
                run.report_progress("measuring references", len(mine) - len(left) + done, len(mine), eta_seconds=eta)
    except NotFiniteError as error:
        raise error.named([asked.requests[place].id for place in left]) from None
    return {place: known[place] for place in mine}


def _engine(config: EvalConfig, subject: Subject, throughput: Throughput) -> Writer:
    """Return the engine that generates and measures likelihoods."""
    if subject.other:
        return Mixture((subject.model.voice, subject.other.voice), config.mix_weight, config.decoding, throughput)
    return Engine(subject.model.loaded, subject.model.tokenizer, config.decoding, throughput)


def _measured(config: EvalConfig, asked: EvalPrompts, shares: Sequence[_Share]) -> Scores:
    """Return what the task makes of the likelihoods of all ranks."""
    bits = {asked.requests[place].id: value for share in shares for place, value in share.bits.items()}
    return config.build_task().measure(asked.records, bits)


def _share(fitted: FittedPrompts, ranks: Ranks) -> list[int]:
    """Return the indices of this rank's prompts; each rank gets a similar mix of long and short ones."""
    places = range(len(fitted.prompts))
    by_length = sorted(places, key=lambda place: (fitted.prompts[place].max_new_tokens, len(fitted.ids[place])))
    return sorted(by_length[ranks.index :: ranks.count])


def _report(run: Run, so_far: Throughput, ranks: Ranks) -> None:
    """Report progress, extrapolated from rank 0 to all ranks."""
    speed = so_far.tokens_per_second * ranks.count
    total, done = so_far.total * ranks.count, so_far.done * ranks.count
    run.report_progress("generating", done, total, None, speed, so_far.eta_seconds)


def _about(config: EvalConfig, subject: Subject, fitted: FittedPrompts, shares: Sequence[_Share]) -> dict[str, Any]:
    """Return the facts about model and generation for `metrics.json`; speeds are those of the last attempt."""
    generated, tokens = sum(share.generated for share in shares), sum(share.tokens for share in shares)
    seconds = max(share.seconds for share in shares)
    model = subject.model.loaded
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
            "largest_batch": max(share.largest_batch for share in shares),
            "processes": len(shares),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "attention": getattr(getattr(model, "anchor", model).config, "_attn_implementation", None),
            "first_prompt": fitted.prompts[0].text if fitted.prompts else None,
        },
        "samples_per_second": round(generated / seconds, 1) if generated else None,
        "tokens_per_second": round(tokens / seconds, 1) if generated else None,
        "seconds": round(seconds, 2),
    }
