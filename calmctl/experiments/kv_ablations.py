"""The ablations of the paper's table 5 on the key-value task, and what the paper leaves open, one change at a time.

Everything stands on a finished `calmctl reproduce kv` folder: its data, m_A, m_B and headline composition are used as
they are. What is trained and scored for the ablations lies in `ablations/` below that folder.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.environment import git_commit, hardware
from calmctl.experiments.evaluation import METRICS_FILE
from calmctl.experiments.kv import BASES, COMPOSITIONS, kv_stages
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.stages import Stage, StageRunner, stage_in
from calmctl.files import read_json
from calmctl.reporting.kv_ablations import ABLATIONS_FOLDER, TABLE_5_FILE
from calmctl.reporting.kv_report import write_kv_report
from calmctl.runs import Run, read_run

DC_MIX = "dc_mix.parquet"
METHOD_LABELS = {
    "lora": "LoRA",
    "prefix": "prefix tuning",
    "series": "series adapters",
    "parallel": "parallel adapters",
    "full": "full fine-tuning on D_C",
}
REUSED = {
    "m_A": ("m_A alone", "models"),
    "m_B": ("m_B alone", "models"),
    "calm": ("CALM", "models"),
    "random_aug": ("random m_A", "m_A"),
    "dc_subs": ("D_C subs", "D_C"),
    "dc_math": ("D_C math", "D_C"),
}
"""Rows of table 5 that the reproduction itself has measured: key -> label and group."""


@dataclass(frozen=True)
class Variant:
    """One row of table 5: a model that differs from the headline composition in one thing.

    Attributes:
        name: its key in `table5.json` and its folder.
        group: what is varied.
        value: the setting's value, where it is a number.
    """

    name: str
    label: str
    group: str
    stages: tuple[Stage, ...]
    value: float | None = None


def kv_variants(config: ReproduceKVConfig, out: Path) -> Iterator[Variant]:
    """Yield the variants of a reproduction in `out`, each with the stages that make and score it."""
    out = out.resolve()
    build = _Builder(config, out, out / ABLATIONS_FOLDER)
    chosen = config.ablations
    if chosen.vanilla_aug:
        yield build.with_vanilla_aug()
    if chosen.encoder_aug:
        yield build.composition("aug_as_encoder", "m_A as an encoder", "m_A", aug_reads="prompt")
    for every in chosen.every:
        yield build.composition(f"every_{every}", f"every {every} layers", "connections", every, every=every)
    for heads in chosen.heads:
        bridge = replace(config.compose.bridge, num_heads=heads)
        yield build.composition(f"heads_{heads}", f"{heads} head{'s' * (heads > 1)}", "heads", heads, bridge=bridge)
    for share in chosen.shares:
        yield build.with_share_of_keys(share)
    for method in chosen.methods:
        yield build.baseline(method, METHOD_LABELS[method], method, DC_MIX)
    if chosen.further_training:
        yield build.baseline("further", "further training on m_A's data", "full", "aug_train.parquet")


@dataclass(frozen=True)
class _Builder:
    config: ReproduceKVConfig
    out: Path
    root: Path

    def composition(self, name: str, label: str, group: str, value: float | None = None, **changes: Any) -> Variant:
        return Variant(name, label, group, (self._compose(name, **changes), self._score(name)), value)

    def with_vanilla_aug(self) -> Variant:
        """Return the composition with m_A as it is before it learns the keys: trained on the anchor's data."""
        data = self.out / "data"
        tokenizer = self.config.data.tokenizer or str(data / "tokenizer")
        settings = replace(self.config.aug, dataset=str(data / "anchor_train.parquet"), tokenizer=tokenizer)
        aug = stage_in(self.root, "vanilla", ("train", "aug"), settings)
        composed = self._compose("vanilla_aug", ("vanilla",), augs=(str(self.root / "vanilla"),))
        return Variant(
            "vanilla_aug", "vanilla m_A (never saw a key)", "m_A", (aug, composed, self._score("vanilla_aug"))
        )

    def with_share_of_keys(self, share: float) -> Variant:
        """Return the composition on a D_C over another share of the keys; the keys and their values stay."""
        name = f"share_{share:g}"
        folder = f"data_{name}"
        data = stage_in(
            self.root, folder, ("data", "kv"), replace(self.config.data, held_in_fraction=share), result="manifest.json"
        )
        composed = self._compose(name, (folder,), dataset=str(self.root / folder / DC_MIX))
        return Variant(
            name, f"D_C over {share:.0%} of the keys", "share",
            (data, composed, self._score(name, self.root / folder)), share,
        )  # fmt: skip

    def baseline(self, name: str, label: str, method: str, file: str) -> Variant:
        settings = replace(
            self.config.baseline,
            anchor=str(self.out / "anchor"),
            dataset=str(self.out / "data" / file),
            match=str(self.out / "calm"),
        )
        trained = stage_in(self.root, name, ("baseline", method), settings)
        return Variant(name, label, "baselines", (trained, self._score(name)))

    def _compose(self, name: str, needs: Sequence[str] = (), **changes: Any) -> Stage:
        defaults = {
            "anchor": str(self.out / "anchor"),
            "augs": (str(self.out / "aug"),),
            "dataset": str(self.out / "data" / DC_MIX),
        }
        return stage_in(self.root, name, ("compose",), replace(self.config.compose, **(defaults | changes)), needs)

    def _score(self, name: str, data: Path | None = None) -> Stage:
        settings = replace(
            self.config.eval,
            model=str(self.root / name),
            dataset=str(data or self.out / "data"),
            threads=self.config.threads,
        )
        return stage_in(self.root, f"eval/{name}", ("eval", "kv"), settings, (name,), METRICS_FILE)


def reproduction_stages(
    config: ReproduceKVConfig, out: Path, ablations: bool = False, nproc_per_node: str | None = None
) -> list[Stage]:
    """Return all stages of a reproduction in `out`, those of its ablations last."""
    stages = kv_stages(config, out) + (_ablation_stages(kv_variants(config, out)) if ablations else [])
    return [stage.launched(nproc_per_node) for stage in stages]


def _ablation_stages(variants: Iterable[Variant]) -> list[Stage]:
    """Return the stages of variants, evaluations last: what others wait for goes first."""
    stages = [stage for variant in variants for stage in variant.stages]
    return sorted(stages, key=lambda stage: stage.command[0] == "eval")


def ablate_kv(
    config: ReproduceKVConfig,
    out: Path,
    command: Sequence[str] = (),
    running: dict[str, Path] | None = None,
    nproc_per_node: str | None = None,
) -> Run:
    """Train and score every variant of a finished reproduction in `out` that is not done yet; write table and report.

    Raises:
        UserError: the folder holds ablations of another configuration, or a stage refused its input.
    """
    folder = out / ABLATIONS_FOLDER
    with Run.start(folder, kind="reproduce", config=config, command=command, seed=config.seed) as run:
        variants = list(kv_variants(config, out))
        stages = [stage.launched(nproc_per_node) for stage in _ablation_stages(variants)]
        jobs = 1 if nproc_per_node else config.stages_at_once
        runner = StageRunner(folder.resolve(), stages, jobs, config.threads, running)
        if runner.run() or not run.is_complete:
            seconds = {**runner.seconds(), "total": round(run.seconds, 1)}
            run.write_json(TABLE_5_FILE, table5(config, out, variants, seconds))
        write_kv_report(out)
        if not run.is_complete:
            run.finish()
        return run


def table5(
    config: ReproduceKVConfig, out: Path, variants: Sequence[Variant], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return `table5.json`: accuracies in percent on held-out keys, sizes, and where each row's runs are."""
    rows: dict[str, Any] = {}
    runs = BASES | {name: key for name, (_, _, key) in COMPOSITIONS.items()}
    for name, key in runs.items():
        if (out / "eval" / name / METRICS_FILE).is_file():
            label, group = REUSED[key]
            rows[key] = {"label": label, "group": group, "value": None, **_measured(out, "", name)}
    for variant in variants:
        about = {"label": variant.label, "group": variant.group, "value": variant.value}
        rows[variant.name] = about | _measured(out, f"{ABLATIONS_FOLDER}/", variant.name)
    bridges = config.compose.bridge.num_heads
    return {
        "rows": rows,
        "calm_values": {"share": config.data.held_in_fraction, "heads": bridges, "connections": config.compose.every},
        "seed": config.seed,
        "preset": config.preset,
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": seconds,
    }


def _measured(out: Path, prefix: str, name: str) -> dict[str, Any]:
    """Return the figures of one model and the folders, relative to `out`, that they were read from."""
    run, evaluation = f"{prefix}{name}", f"{prefix}eval/{name}"
    facts = read_run(out / run).facts
    kept = ("trainable_parameters", "seconds", "peak_memory_bytes")
    return {
        "metrics": read_json(out / evaluation / METRICS_FILE)["metrics"],
        **{fact: facts.get(fact) for fact in kept},
        "run": run,
        "evaluation": evaluation,
    }
