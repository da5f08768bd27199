"""The paper's key-value experiment (section 4.1, table 1) from nothing to table and report.

Data -> m_A beside m_B -> four compositions (the headline, a random m_A, two other kinds of D_C) -> evaluation of all
six models -> `table1.json` and report. Each step is a `calmctl` command in a process of its own (see stages.py).
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calmctl.config import to_dict, to_yaml
from calmctl.environment import git_commit, hardware, usable_cores
from calmctl.experiments.evaluation import METRICS_FILE, EvalConfig
from calmctl.experiments.kv_deviations import deviations
from calmctl.experiments.stages import Stage, StageRunner
from calmctl.files import read_json, write_text
from calmctl.modeling.sources import base_config, load_tokenizer
from calmctl.reporting.kv_report import write_kv_report
from calmctl.reporting.paper import TABLE_1
from calmctl.runs import Run
from calmctl.training.configs import ComposeConfig, TrainConfig, check_seed
from calmctl.training.jobs import model_config
from calmctl.training.plan import plan_bridges, plan_training
from data_builders.kv import KVDataConfig
from data_builders.kv_text import WORDS
from data_builders.word_tokenizer import build_word_tokenizer

# Composition run -> (aug it reads, D_C file, key in table1.json).
COMPOSITIONS = {
    "calm": ("aug", "dc_mix.parquet", "calm"),
    "calm_random_aug": ("aug_random", "dc_mix.parquet", "random_aug"),
    "calm_dc_subs": ("aug", "dc_subs.parquet", "dc_subs"),
    "calm_dc_math": ("aug", "dc_math.parquet", "dc_math"),
}
# Settings of the stages' configurations that follow from where the experiment puts things.
DECIDED_HERE = (
    "anchor.dataset", "anchor.tokenizer", "aug.dataset", "aug.tokenizer", "compose.dataset", "compose.anchor",
    "compose.augs", "eval.model", "eval.dataset",
)  # fmt: skip
BASES = {"anchor": "m_B", "aug": "m_A"}


@dataclass(frozen=True)
class ReproduceKVConfig:
    """The whole experiment.

    Attributes:
        preset: name of the preset, for the report.
        seed: of every stage.
        jobs: stages at once; 0 = as many as there are cores for their threads.
        threads: CPU threads of each stage.
        controls: also train and score the random m_A and the other kinds of D_C.
        control_steps: optimizer steps of the controls; 0 = as many as the headline composition.
    """

    preset: str = ""
    seed: int = 0
    jobs: int = 0
    threads: int = 1
    controls: bool = True
    control_steps: int = 0
    data: KVDataConfig = field(default_factory=KVDataConfig)
    anchor: TrainConfig = field(default_factory=TrainConfig)
    aug: TrainConfig = field(default_factory=TrainConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Give every stage the one seed; raise ValueError for settings that the experiment itself decides."""
        check_seed(self.seed)
        for name in ("jobs", "control_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads} must be at least 1")
        for name in ("data", "anchor", "aug", "compose"):
            stage = getattr(self, name)
            if stage.seed not in (0, self.seed):
                raise ValueError(f"{name}.seed={stage.seed}: every stage takes the experiment's; set seed=... instead")
            object.__setattr__(self, name, replace(stage, seed=self.seed))
        for path in DECIDED_HERE:
            name, setting = path.split(".")
            if value := getattr(getattr(self, name), setting):
                raise ValueError(f"{path}={value}: the experiment decides that; leave it out")


def reproduce_kv(config: ReproduceKVConfig, out: Path, runner: "KVExperiment", command: Sequence[str] = ()) -> Run:
    """Run whatever is not done yet, then write table, plots and report.

    Raises:
        UserError: `out` holds another run or another configuration, or a stage refused its input.
    """
    departures = deviations(config)
    with Run.start(out, kind="reproduce", config=config, command=command, seed=config.seed) as run:
        ran = runner.run()
        if ran or not run.is_complete:
            seconds = {**runner.seconds(), "total": round(run.seconds, 1)}
            run.write_json("table1.json", table(config, out, departures, seconds))
        write_kv_report(out)
        if not run.is_complete:
            run.finish()
        return run


class KVExperiment:
    """The stages of the experiment in a folder; `running` names those under way.

    Args:
        nproc_per_node: processes of every training and evaluation; they then run one after the other.
    """

    def __init__(self, config: ReproduceKVConfig, out: Path, nproc_per_node: str | None = None) -> None:
        # Stages and their settings name folders: these have to mean the same from another working directory.
        self.config, self.out = config, out.resolve()
        self.launch = () if nproc_per_node is None else ("--nproc-per-node", nproc_per_node)
        jobs = config.jobs or (1 if self.launch else max(1, usable_cores() // max(config.threads, 1)))
        self.stages = self._stages()
        self.runner = StageRunner(self.out, self.stages, jobs, config.threads)
        self.running = self.runner.running

    def run(self) -> list[str]:
        """Run what is not done and return the names of the stages that ran."""
        for stage in self.stages:
            path, settings = self._preset_file(stage)
            write_text(path, f"# calmctl {shlex.join(stage.command)}\n{to_yaml(settings)}")
        return self.runner.run()

    def seconds(self) -> dict[str, float]:
        """Return the wall-clock seconds that each stage took."""
        return self.runner.seconds()

    def _preset_file(self, stage: Stage) -> tuple[Path, dict[str, Any]]:
        group = {"data": "data/kv"}.get(stage.command[0], stage.command[0])
        return self.out / "conf" / group / f"{stage.name.replace('/', '_')}.yaml", stage.settings

    def _stages(self) -> list[Stage]:
        config, data = self.config, self.out / "data"
        stages = [self._stage("data", ("data", "kv"), config.data, (), "manifest.json")]
        tokenizer = str(data / "tokenizer") if config.data.tokenizer is None else config.data.tokenizer
        anchor = replace(config.anchor, dataset=str(data / "anchor_train.parquet"), tokenizer=tokenizer)
        aug = replace(config.aug, dataset=str(data / "aug_train.parquet"), tokenizer=tokenizer)
        stages.append(self._stage("anchor", ("train", "anchor"), anchor, ("data",)))
        stages.append(self._stage("aug", ("train", "aug"), aug, ("data",)))
        if config.controls:
            untrained = replace(aug, train=replace(aug.train, steps=0))
            stages.append(self._stage("aug_random", ("train", "aug"), untrained, ("data",)))
        for name, (source, file, _) in COMPOSITIONS.items():
            if name == "calm" or config.controls:
                stages.append(self._composition(name, source, data / file))
        # Evaluations last: what others wait for goes first.
        for name in [*BASES, *(stage.name for stage in stages if stage.name in COMPOSITIONS)]:
            settings = replace(config.eval, model=str(self.out / name), dataset=str(data), threads=config.threads)
            stages.append(self._stage(f"eval/{name}", ("eval", "kv"), settings, (name,), METRICS_FILE))
        return stages

    def _composition(self, name: str, aug: str, data: Path) -> Stage:
        config = self.config
        train = config.compose.train
        if name != "calm" and config.control_steps:
            train = replace(train, steps=config.control_steps)
        settings = replace(
            config.compose,
            anchor=str(self.out / "anchor"),
            augs=(str(self.out / aug),),
            dataset=str(data),
            train=train,
        )
        return self._stage(name, ("compose",), settings, ("anchor", aug))

    def _stage(
        self,
        name: str,
        command: tuple[str, ...],
        settings: object,
        needs: tuple[str, ...],
        result: str = "model/config.json",
    ) -> Stage:
        folder = self.out / name
        options = ("--preset", name.replace("/", "_"), "--config-dir", str(self.out / "conf"), "--out", str(folder))
        launch = () if command[0] == "data" else self.launch
        return Stage(name, (*command, *options, *launch), folder, folder / result, to_dict(settings), needs)


def plan(config: ReproduceKVConfig) -> dict[str, Any]:
    """Return what the experiment trains: models, bridges, memory, steps. The tokenizer is that of the data to come."""
    names = [f"key{number}" for number in range(config.data.num_keys)]
    source = config.data.tokenizer
    tokenizer = build_word_tokenizer(names, WORDS) if source is None else load_tokenizer(source)
    anchor, aug = (
        plan_training(replace(train, dataset=f"data/{role}_train.parquet"), tokenizer)
        for role, train in (("anchor", config.anchor), ("aug", config.aug))
    )
    configs = [
        base_config(train.base) if train.base else model_config(train.model, tokenizer)
        for train in (config.anchor, config.aug)
    ]
    composition = plan_bridges(replace(config.compose, dataset="data/dc_mix.parquet"), configs[0], configs[1:])
    return {"data": to_dict(config.data), "anchor": anchor, "aug": aug, "composition": composition}


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
