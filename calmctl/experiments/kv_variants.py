"""The variants of the key-value composition: one change each, as the stages that make and score it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.baselines.building import sizes_for
from calmctl.baselines.methods import FULL
from calmctl.errors import UserError
from calmctl.evaluation.evaluating import METRICS_FILE
from calmctl.experiments.kv import aug_trainings, base_configs
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.labels import METHOD_LABELS
from calmctl.experiments.stages import Stage, stage_in
from calmctl.modeling.bases.sources import without_weights
from calmctl.modeling.layers import num_heads, num_layers
from calmctl.reporting.kv_ablations import ABLATIONS_FOLDER, VANILLA_RUN
from calmctl.training.plan import plan_bridges

DC_MIX = "dc_mix.parquet"


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
    chosen, calm = config.ablations, calm_values(config)
    if chosen.vanilla_aug:
        yield build.with_vanilla_aug()
    if chosen.encoder_aug and config.compose.aug_reads != "prompt":
        yield build.composition("aug_as_encoder", "m_A as an encoder", "m_A", aug_reads="prompt")
    for every in chosen.every:
        if every != calm["connections"]:
            label = "every layer" if every == 1 else f"every {every} layers"
            changes = {"every": every, "num": None, "connections": None}
            yield build.composition(f"every_{every}", label, "connections", every, **changes)
    for heads in chosen.heads:
        if heads != calm["heads"]:
            bridge = replace(config.compose.bridge, num_heads=heads)
            yield build.composition(f"heads_{heads}", f"{heads} head{'s' * (heads > 1)}", "heads", heads, bridge=bridge)
    for share in chosen.shares:
        if share != calm["share"]:
            yield build.with_share_of_keys(share)
    for method in chosen.methods:
        yield build.baseline(method, METHOD_LABELS[method], method, DC_MIX)
    if chosen.further_training:
        yield build.baseline("further", "further training on m_A's data", FULL, "aug_train.parquet")


def calm_values(config: ReproduceKVConfig) -> dict[str, float | None]:
    """Return what the headline composition has of each numeric setting that is varied; None = no such value."""
    compose = config.compose
    is_regular = compose.connections is None and compose.num is None
    return {
        "share": config.data.held_in_fraction,
        "heads": compose.bridge.num_heads or num_heads(base_configs(config)[0]),
        "connections": compose.every if is_regular else None,
    }


def check_ablations(config: ReproduceKVConfig) -> None:
    """Raise UserError for a variant that cannot be made, before hours of training have led there."""
    chosen, compose = config.ablations, config.compose
    anchor, augs = base_configs(config)
    for every in chosen.every:
        if every > (layers := num_layers(augs[0])):
            raise UserError(f"ablations.every={every}: m_A has {layers} layers only")
        with _naming(f"ablations.every={every}"):
            plan_bridges(replace(compose, every=every, num=None, connections=None), anchor, augs)
    for heads in chosen.heads:
        with _naming(f"ablations.heads={heads}"):
            plan_bridges(replace(compose, bridge=replace(compose.bridge, num_heads=heads)), anchor, augs)
    for share in chosen.shares:
        with _naming(f"ablations.shares={share:g}"):
            replace(config.data, held_in_fraction=share)
    wanted = plan_bridges(compose, anchor, augs)["trainable_parameters"]
    for method in chosen.methods:
        if method != FULL:
            with _naming(f"ablations.methods={method}"):
                sizes_for(without_weights(anchor), method, wanted, None, config.baseline.where)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Say in front of a refusal which setting it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error


@dataclass(frozen=True)
class _Builder:
    config: ReproduceKVConfig
    out: Path
    root: Path

    def composition(self, name: str, label: str, group: str, value: float | None = None, **changes: Any) -> Variant:
        return Variant(name, label, group, (self._compose(name, **changes), self._score(name)), value)

    def with_vanilla_aug(self) -> Variant:
        """Return the composition with m_A as it is before it learns the keys: trained on the anchor's data."""
        dataset = str(self.out / "data" / "anchor_train.parquet")
        augs = [
            self._stage(name, ("train", "aug"), replace(settings, dataset=dataset))
            for name, settings in aug_trainings(self.config, self.out, Path(VANILLA_RUN).name).items()
        ]
        names, folders = [aug.name for aug in augs], tuple(str(aug.folder) for aug in augs)
        composed = self._compose("vanilla_aug", names, augs=folders)
        return Variant("vanilla_aug", "vanilla m_A", "m_A", (*augs, composed, self._score("vanilla_aug")))

    def with_share_of_keys(self, share: float) -> Variant:
        """Return the composition on a D_C over another share of the keys; the keys and their values stay.

        It is scored on a test set of its own: other keys are held out.
        """
        name = f"share_{share:g}"
        folder = f"data_{name}"
        data = self._stage(
            folder, ("data", "kv"), replace(self.config.data, held_in_fraction=share), result="manifest.json"
        )
        composed = self._compose(name, (folder,), dataset=str(self.root / folder / DC_MIX))
        return Variant(
            name, f"{100 * share:g}% of the keys", "share",
            (data, composed, self._score(name, self.root / folder)), share,
        )  # fmt: skip

    def baseline(self, name: str, label: str, method: str, file: str) -> Variant:
        settings = replace(
            self.config.baseline,
            method=method,
            anchor=str(self.out / "anchor"),
            dataset=str(self.out / "data" / file),
            match=str(self.out / "calm"),
        )
        trained = self._stage(name, ("baseline", method), settings)
        return Variant(name, label, "baselines", (trained, self._score(name)))

    def _stage(self, name: str, command: Sequence[str], settings: object, *others: Any, **more: Any) -> Stage:
        return stage_in(self.root, name, command, settings, *others, **more)

    def _compose(self, name: str, needs: Sequence[str] = (), **changes: Any) -> Stage:
        defaults = {
            "anchor": str(self.out / "anchor"),
            "augs": tuple(str(self.out / name) for name in aug_trainings(self.config, self.out, "aug")),
            "dataset": str(self.out / "data" / DC_MIX),
        }
        return self._stage(name, ("compose",), replace(self.config.compose, **(defaults | changes)), needs)

    def _score(self, name: str, data: Path | None = None) -> Stage:
        settings = replace(
            self.config.eval,
            model=str(self.root / name),
            dataset=str(data or self.out / "data"),
            threads=self.config.threads,
        )
        return self._stage(f"eval/{name}", ("eval", "kv"), settings, (name,), METRICS_FILE)
