"""The paper's key-value experiment (section 4.1, table 1) from nothing to table and report.

Data -> m_A beside m_B -> four compositions (the headline, a random m_A, two other kinds of D_C) -> evaluation of all
six models -> `table1.json` and report. Each step is a `calmctl` command in a process of its own (see stages.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from calmctl.baselines.configs import BaselineConfig
from calmctl.config import to_dict
from calmctl.environment import git_commit, hardware
from calmctl.experiments.evaluation import METRICS_FILE
from calmctl.experiments.kv_config import KVAblationsConfig, ReproduceKVConfig
from calmctl.experiments.kv_deviations import deviations
from calmctl.experiments.preflight import check_stages
from calmctl.experiments.stages import Stage, missing_stages, run_stages, stage_in
from calmctl.files import read_json
from calmctl.modeling.sources import base_config, load_tokenizer
from calmctl.reporting.kv_report import write_kv_report
from calmctl.reporting.kv_results import TABLE_FILE
from calmctl.reporting.paper import TABLE_1
from calmctl.run_identity import existing_run
from calmctl.runs import Run
from calmctl.training.models import model_config
from calmctl.training.plan import plan_bridges, training_facts
from data_builders.kv_text import WORDS
from data_builders.word_tokenizer import build_word_tokenizer

# Composition run -> (aug it reads, D_C file, key in table1.json).
COMPOSITIONS = {
    "calm": ("aug", "dc_mix.parquet", "calm"),
    "calm_random_aug": ("aug_random", "dc_mix.parquet", "random_aug"),
    "calm_dc_subs": ("aug", "dc_subs.parquet", "dc_subs"),
    "calm_dc_math": ("aug", "dc_math.parquet", "dc_math"),
}
BASES = {"anchor": "m_B", "aug": "m_A"}


def reproduce_kv(
    config: ReproduceKVConfig,
    out: Path,
    command: Sequence[str] = (),
    running: dict[str, Path] | None = None,
    nproc_per_node: str | None = None,
) -> Run:
    """Run whatever is not done yet, then write table, plots and report.

    Args:
        running: is kept filled with the folders of the stages under way, for a progress display.
        nproc_per_node: processes of every training and evaluation; stages then run one after the other.

    Raises:
        UserError: `out` holds another run or another configuration, or a stage refused its input.
    """
    # Ablations are a run of their own: an experiment can be given them later, and more of them.
    config = replace(config, baseline=BaselineConfig(), ablations=KVAblationsConfig())
    departures, stages = deviations(config), kv_stages(config, out)
    is_current = preflight(config, out, nproc_per_node)
    with Run.start(
        out, kind="reproduce", config=config, command=command, seed=config.seed, is_current=is_current
    ) as run:
        seconds = run_stages(out, stages, config, nproc_per_node, running)
        if not run.is_complete:
            run.write_json(TABLE_FILE, table(config, out, departures, {**seconds, "total": round(run.seconds, 1)}))
        write_kv_report(out)
        if not run.is_complete:
            run.finish()
        return run


def preflight(config: ReproduceKVConfig, out: Path, nproc_per_node: str | None) -> bool:
    """Return whether nothing is left to do; check what can be checked of what is, which a plan does as well.

    Raises:
        DataError, UserError: see `reproduce_kv`.
    """
    config = replace(config, baseline=BaselineConfig(), ablations=KVAblationsConfig())
    stages = kv_stages(config, out)
    existing_run(out, "reproduce", config, {})  # another run is refused before its stages are looked at
    is_current = not missing_stages(stages) and (out / TABLE_FILE).exists()
    Run.look(out, kind="reproduce", config=config, is_current=is_current)
    if not is_current:
        check_stages(stages, nproc_per_node)
        plan(config)
    return is_current


def kv_stages(config: ReproduceKVConfig, out: Path) -> list[Stage]:
    """Return the stages of the experiment in a folder."""
    # Stages and their settings name folders: these have to mean the same from another working directory.
    out = out.resolve()
    data = out / "data"
    tokenizer = str(data / "tokenizer") if config.data.tokenizer is None else config.data.tokenizer
    anchor = replace(config.anchor, dataset=str(data / "anchor_train.parquet"), tokenizer=tokenizer)
    aug = replace(config.aug, dataset=str(data / "aug_train.parquet"), tokenizer=tokenizer)
    stages = [
        stage_in(out, "data", ("data", "kv"), config.data, result="manifest.json"),
        stage_in(out, "anchor", ("train", "anchor"), anchor, ("data",)),
        stage_in(out, "aug", ("train", "aug"), aug, ("data",)),
    ]
    if config.controls:
        untrained = replace(aug, train=replace(aug.train, steps=0))
        stages.append(stage_in(out, "aug_random", ("train", "aug"), untrained, ("data",)))
    compositions = [name for name in COMPOSITIONS if name == "calm" or config.controls]
    for name in compositions:
        source, file, _ = COMPOSITIONS[name]
        steps = config.control_steps if name != "calm" and config.control_steps else config.compose.train.steps
        settings = replace(
            config.compose,
            anchor=str(out / "anchor"),
            augs=(str(out / source),),
            dataset=str(data / file),
            train=replace(config.compose.train, steps=steps),
        )
        stages.append(stage_in(out, name, ("compose",), settings, ("anchor", source)))
    # Evaluations last: what others wait for goes first.
    for name in [*BASES, *compositions]:
        scored = replace(config.eval, model=str(out / name), dataset=str(data), threads=config.threads)
        stages.append(stage_in(out, f"eval/{name}", ("eval", "kv"), scored, (name,), METRICS_FILE))
    return stages


def plan(config: ReproduceKVConfig) -> dict[str, Any]:
    """Return what the experiment trains: models, bridges, memory, steps. The tokenizer is that of the data to come."""
    base, augs = base_configs(config)
    anchor, aug = (
        training_facts(replace(train, dataset=f"data/{role}_train.parquet"), model)
        for role, train, model in (("anchor", config.anchor, base), ("aug", config.aug, augs[0]))
    )
    composition = plan_bridges(replace(config.compose, dataset="data/dc_mix.parquet"), base, augs)
    return {"data": to_dict(config.data), "anchor": anchor, "aug": aug, "composition": composition}


def base_configs(config: ReproduceKVConfig) -> tuple[PreTrainedConfig, list[PreTrainedConfig]]:
    """Return the configurations of m_B and of m_A, whether or not they are trained yet."""
    tokenizer = _tokenizer(config)
    anchor, aug = (
        base_config(train.base, trust_remote_code=train.trust_remote_code)
        if train.base
        else model_config(train.model, tokenizer)
        for train in (config.anchor, config.aug)
    )
    return anchor, [aug]


def _tokenizer(config: ReproduceKVConfig) -> PreTrainedTokenizerBase:
    """Return a tokenizer with as many tokens as that of the data to come."""
    names = [f"key{number}" for number in range(config.data.num_keys)]
    source = config.data.tokenizer
    return build_word_tokenizer(names, WORDS) if source is None else load_tokenizer(source)


def table(config: ReproduceKVConfig, out: Path, departures: Sequence[str], seconds: dict[str, float]) -> dict[str, Any]:
    """Return `table1.json`: accuracies in percent on held-out keys beside the paper's; `seconds` are wall-clock."""
    rows: dict[str, Any] = {}
    names = {name: key for name, (_, _, key) in COMPOSITIONS.items() if name == "calm" or config.controls}
    for name, key in (BASES | names).items():
        rows[key] = read_json(out / "eval" / name / METRICS_FILE)["metrics"]
    order = ["m_A", "m_B", "calm", "random_aug", "dc_subs", "dc_math"]
    return {
        **{key: rows[key] for key in order if key in rows},
        "dc_mix": rows["calm"],
        "paper": TABLE_1,
        "seed": config.seed,
        "preset": config.preset,
        "deviations": list(departures),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": seconds,
    }
