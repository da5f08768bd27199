"""The systems of the experiment on adapters: m_B with each kind of adapter, and the studies of their place and size."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.experiments.adapter_config import CHOICES, SIZES, Choice, ReproduceAdaptersConfig
from calmctl.experiments.stages import stage_in
from calmctl.experiments.systems import System, Systems, Trained
from calmctl.reporting.systems_table import RANDOM, VARIANTS, shown_value

PUBLISHED_LORA_DROPOUT = 0.05


class AdapterSystems(Systems):
    """Builds the systems of the experiment on adapters."""

    config: ReproduceAdaptersConfig

    def all(self) -> list[System]:
        """Return m_B, m_A and the composition if there is an m_A, then the methods and their studies."""
        models = [System("m_B", (self.anchor,))]
        if self.augs:
            models = [System("m_A", (self.aug,)), *models, self.per_seed("calm", self._composition)]
        return [*models, *map(self._compared, self.config.compare), *(self._ablations() if self.config.ablate else ())]

    def _trained_augs(self) -> list[Trained]:
        return super()._trained_augs() if self.config.aug.base else []

    def _compared(self, key: str) -> System:
        label = "full fine-tuning" if key == FULL else ""
        return self.per_seed(key, self._composition if key == RANDOM else self._tuned, label)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        return self.composed(name, seed, self.augs, random_aug=key == RANDOM)

    def _ablations(self) -> Iterator[System]:
        """Yield the study of places, then that of sizes, for the methods that are compared."""
        config, compared = self.config, self.config.compare
        methods = {CHOICES[key].method for key in compared if key in CHOICES}
        if config.ablations.places:
            for key, choice in CHOICES.items():
                if choice.method in methods and key not in compared:
                    yield self.per_seed(key, self._tuned)
        for setting, values in (
            ("rank", config.ablations.ranks),
            ("width", config.ablations.widths),
            ("virtual_tokens", config.ablations.virtual_tokens),
        ):
            for method, varied in SIZES[setting].items():
                for value in values if method in compared else ():
                    if value != getattr(config, setting):
                        build = partial(self._of_size, method, value)
                        row = VARIANTS[varied]
                        label = row.label.format(shown_value(row.group, value))
                        yield self.per_seed(f"{varied}_{value}", build, label, value)

    def _of_size(self, method: str, size: int, _key: str, name: str, seed: int) -> Trained:
        return self._tuned(method, name, seed, size)

    def _tuned(self, key: str, name: str, seed: int, size: int = 0) -> Trained:
        """Return m_B trained with an adapter, or as a whole; `size` = 0 is the experiment's own."""
        config, needs = self.config, ["data", *self.anchor.needs]
        choice = CHOICES.get(key, Choice(FULL))
        settings = replace(
            config.baseline,
            method=choice.method,
            anchor=self.anchor.model,
            dataset=str(self.data / self.files.composition),
            validation=str(self.data / self.files.composition_validation),
            seed=seed,
            **self._options(choice),
        )
        if choice.method != FULL and config.equal_parameters and not size:
            settings = replace(settings, match=str(self.out / "calm"))
            needs.append("calm")
        elif choice.method != FULL:
            settings = replace(settings, size=size or _size_of(choice.method, config))
        stage = stage_in(self.out, name, ("baseline", choice.method), settings, tuple(needs))
        return Trained(seed, name, str(stage.folder), (stage,))

    def _options(self, choice: Choice) -> dict[str, Any]:
        """Return where an adapter sits and how it is built: what its method takes of `baseline`, or as published."""
        if choice.method == FULL:
            given: dict[str, Any] = {}
        elif self.config.published:
            is_lora = choice.method == "lora"
            given = {"dropout": PUBLISHED_LORA_DROPOUT} if is_lora else {"init": "published"}
        else:
            given = self.config.baseline.options.changed()
        takes = ADAPTERS[choice.method].takes if choice.method != FULL else ()
        defaults = {"activation": "tanh", "init": "neutral", "scaling": 0.0, "dropout": 0.0}
        options = {name: given.get(name, value) if name in takes else value for name, value in defaults.items()}
        if self.config.published and choice.targets:
            return {**options, "where": "", "targets": (choice.targets,)}
        return {**options, "where": choice.where, "targets": ()}


def own_sizes(config: ReproduceAdaptersConfig) -> dict[str, float | None]:
    """Return the size that the compared method has, by the group of its variants; empty without the study of sizes."""
    if not config.ablate or config.equal_parameters:
        return {}
    groups = {
        VARIANTS[varied].group: setting
        for setting, methods in SIZES.items()
        for method, varied in methods.items()
        if method in config.compare
    }
    return {group: float(getattr(config, setting)) for group, setting in groups.items()}


def _size_of(method: str, config: ReproduceAdaptersConfig) -> int:
    return next(int(getattr(config, setting)) for setting, methods in SIZES.items() if method in methods)
