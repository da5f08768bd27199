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
from calmctl.evaluation.evaluating import METRICS_FILE
from calmctl.experiments.kv_config import KVAblationsConfig, ReproduceKVConfig
from calmctl.experiments.kv_deviations import deviations
from calmctl.experiments.preflight import check_stages
from calmctl.experiments.stages import Stage, missing_stages, run_stages, stage_in
from calmctl.modeling.bases.sources import base_config, load_tokenizer
from calmctl.reporting.kv_report import write_kv_report
from calmctl.reporting.kv_results import TABLE_FILE
from calmctl.reporting.paper import TABLE_1
from calmctl.runs.identity import existing_run
from calmctl.runs.run import Run
from calmctl.training.configs import TrainConfig
from calmctl.training.models import model_config
from calmctl.training.plan import plan_bridges, training_facts
from data_builders.kv.build import aug_file
from data_builders.kv.keys import aug_tokenizer_folder
from data_builders.kv.text import WORDS
from data_builders.kv.tokenizers import CUTS, build_byte_tokenizer, build_word_tokenizer
from data_builders.values import read_json

# Composition run -> (aug it reads, D_C file, key in table1.json).
COMPOSITIONS = {
    "calm": ("aug", "dc_mix.parquet", "calm"),
    "calm_one_tokenizer": ("aug_one_tokenizer", "dc_mix.parquet", "one_tokenizer"),
    "calm_random_aug": ("aug_random", "dc_mix.parquet", "random_aug"),
    "calm_dc_subs": ("aug", "dc_subs.parquet", "dc_subs"),
    "calm_dc_math": ("aug", "dc_math.parquet", "dc_math"),
}
CONTROLS = ("calm_random_aug", "calm_dc_subs", "calm_dc_math")
BASES = {"anchor": "m_B", "aug": "m_A", "aug2": "m_A2"}


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
        UserError: see `reproduce_kv`.
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
    anchor = replace(config.anchor, dataset=str(data / "anchor_train.parquet"), tokenizer=anchor_tokenizer(config, out))
    stages = [
        stage_in(out, "data", ("data", "kv"), config.data, result="manifest.json"),
        stage_in(out, "anchor", ("train", "anchor"), anchor, ("data",)),
    ]
    compositions = composed_runs(config)
    sources = list(dict.fromkeys(COMPOSITIONS[name][0] for name in compositions))
    for source in sources:
        for name, aug in aug_trainings(config, out, source).items():
            stages.append(stage_in(out, name, ("train", "aug"), aug, ("data",)))
    for name in compositions:
        source, file, _ = COMPOSITIONS[name]
        steps = config.control_steps if name in CONTROLS and config.control_steps else config.compose.train.steps
        augs = list(aug_trainings(config, out, source))
        settings = replace(
            config.compose,
            anchor=str(out / "anchor"),
            augs=tuple(str(out / aug) for aug in augs),
            dataset=str(data / file),
            train=replace(config.compose.train, steps=steps),
        )
        stages.append(stage_in(out, name, ("compose",), settings, ("anchor", *augs)))
    # Evaluations last: what others wait for goes first.
    for name in [*bases(config), *compositions]:
        scored = replace(config.eval, model=str(out / name), dataset=str(data), threads=config.threads)
        stages.append(stage_in(out, f"eval/{name}", ("eval", "kv"), scored, (name,), METRICS_FILE))
    return stages


def composed_runs(config: ReproduceKVConfig) -> list[str]:
    """Return the runs of the headline composition and of those that it is compared with."""
    return [
        name for name, (*_, key) in COMPOSITIONS.items() if key == "calm" or (config.controls and key in config.compare)
    ]


def bases(config: ReproduceKVConfig) -> dict[str, str]:
    """Return the run of each base model and its key in `table1.json`."""
    return {name: key for name, key in BASES.items() if name != "aug2" or config.data.num_augs > 1}


def anchor_tokenizer(config: ReproduceKVConfig, out: Path) -> str:
    """Return where m_B's tokenizer is, which is m_A's too unless that is cut otherwise."""
    return config.data.tokenizer or str(out / "data" / "tokenizer")


def aug_trainings(config: ReproduceKVConfig, out: Path, source: str) -> dict[str, TrainConfig]:
    """Return how the m_As of a kind of composition are trained, by their runs."""
    found = {}
    for index in range(config.data.num_augs):
        own = config.data.anchor_cut is not None and source != "aug_one_tokenizer"
        steps = 0 if source == "aug_random" else config.aug.train.steps
        found[source if index == 0 else f"{source}{index + 1}"] = replace(
            config.aug,
            dataset=str(out / "data" / aug_file(index)),
            tokenizer=str(out / "data" / aug_tokenizer_folder(index)) if own else anchor_tokenizer(config, out),
            train=replace(config.aug.train, steps=steps),
        )
    return found


def plan(config: ReproduceKVConfig) -> dict[str, Any]:
    """Return what the experiment trains: models, bridges, memory, steps. The tokenizer is that of the data to come."""
    base, augs = base_configs(config)
    anchor = training_facts(replace(config.anchor, dataset="data/anchor_train.parquet"), base)
    aug, *others = (
        training_facts(replace(config.aug, dataset=f"data/{aug_file(index)}"), model)
        for index, model in enumerate(augs)
    )
    composition = plan_bridges(replace(config.compose, dataset="data/dc_mix.parquet"), base, augs)
    more = {f"aug{number}": facts for number, facts in enumerate(others, 2)}
    return {"data": to_dict(config.data), "anchor": anchor, "aug": aug, **more, "composition": composition}


def base_configs(config: ReproduceKVConfig) -> tuple[PreTrainedConfig, list[PreTrainedConfig]]:
    """Return the configurations of m_B and of each m_A, whether or not they are trained yet."""
    tokenizer, *aug_tokenizers = _tokenizers(config)
    return (
        _model_config(config.anchor, tokenizer),
        [_model_config(config.aug, each) for each in aug_tokenizers or [tokenizer]],
    )


def _model_config(train: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    if train.base:
        return base_config(train.base, trust_remote_code=train.trust_remote_code)
    return model_config(train.model, tokenizer)


def _tokenizers(config: ReproduceKVConfig) -> list[PreTrainedTokenizerBase]:
    """Return a tokenizer for all, or m_B's and those of each m_A, with as many tokens as those of the data to come."""
    data = config.data
    if data.tokenizer is not None:
        return [load_tokenizer(data.tokenizer)]
    names = [f"key{number}" for number in range(data.num_keys)]
    if data.anchor_cut is None:
        return [build_word_tokenizer(names, WORDS)]
    shares = [names, *(names[aug :: data.num_augs] for aug in range(data.num_augs))]
    cuts = (data.anchor_cut, *data.aug_cuts)
    return [build_byte_tokenizer(CUTS[cut], keys, WORDS) for cut, keys in zip(cuts, shares, strict=True)]


def table(config: ReproduceKVConfig, out: Path, departures: Sequence[str], seconds: dict[str, float]) -> dict[str, Any]:
    """Return `table1.json`: accuracies in percent on held-out keys beside the paper's; `seconds` are wall-clock."""
    rows: dict[str, Any] = {}
    names = {name: COMPOSITIONS[name][2] for name in composed_runs(config)}
    for name, key in (bases(config) | names).items():
        rows[key] = read_json(out / "eval" / name / METRICS_FILE)["metrics"]
    by_augs = read_json(out / "eval" / "calm" / METRICS_FILE)["breakdown"].get("by_augs")
    order = ["m_A", "m_A2", "m_B", "calm", "random_aug", "dc_subs", "dc_math", "one_tokenizer"]
    return {
        **{key: rows[key] for key in order if key in rows},
        "dc_mix": rows["calm"],
        **({"calm_by_augs": by_augs} if by_augs else {}),
        "paper": TABLE_1,
        "seed": config.seed,
        "preset": config.preset,
        "deviations": list(departures),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": seconds,
    }
