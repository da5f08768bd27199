"""The systems of the experiment on adapters: m_B with each kind of adapter, and the studies of their place and size."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import ADAPTERS
from calmctl.baselines.options import FULL, PUBLISHED
from calmctl.baselines.places import PUBLISHED_TARGETS
from calmctl.errors import UserError
from calmctl.experiments.adapter_config import CHOICES, SIZES, Choice, ReproduceAdaptersConfig
from calmctl.experiments.stage import stage_in
from calmctl.experiments.systems import System, Systems, Trained
from calmctl.modeling.bases.public_shapes import shape_of
from calmctl.modeling.layers import text_config
from calmctl.reporting.systems_table import METHOD_OF, RANDOM, SIZE_VARIANTS, VARIANTS, shown_value

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
        return self.per_seed(key, self._composition if key == RANDOM else self._tuned, label, is_control=key == RANDOM)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        return self.composed(name, seed, self.augs, random_aug=key == RANDOM)

    def _ablations(self) -> Iterator[System]:
        """Yield the study of places, then that of sizes, for the methods that are compared."""
        config = self.config
        methods = {CHOICES[key].method for key in config.compare if key in CHOICES}
        for key, choice in CHOICES.items() if config.ablations.places else ():
            if choice.method in methods and key not in config.compare and self._is_published(choice):
                yield self.per_seed(key, self._tuned)
        studied = {
            "rank": config.ablations.ranks,
            "width": config.ablations.widths,
            "virtual_tokens": config.ablations.virtual_tokens,
        }
        for setting, values in studied.items():
            for method in (each for each in SIZES[setting] if each in methods):
                for value in values:
                    # With equal parameters, the system of this method has another size.
                    if value != getattr(config, setting) or config.equal_parameters or method not in config.compare:
                        yield self._variant(method, value)

    def _variant(self, method: str, size: int) -> System:
        varied = SIZE_VARIANTS[method]
        row = VARIANTS[varied]
        label = row.label.format(shown_value(row.group, size))
        return self.per_seed(f"{varied}_{size}", partial(self._of_size, method, size), label, size)

    def _is_published(self, choice: Choice) -> bool:
        """Return whether an adapter can be placed as published in m_B's family, if it has to be."""
        if not self.config.published or not choice.targets:
            return True
        kind = choice.method if choice.targets == PUBLISHED else choice.targets
        try:
            return text_config(shape_of(self.anchor.model).config).model_type in PUBLISHED_TARGETS[kind]
        except UserError:  # m_B is not here yet
            return True

    def _of_size(self, method: str, size: int, _key: str, name: str, seed: int) -> Trained:
        return self._tuned(method, name, seed, size)

    def _tuned(self, key: str, name: str, seed: int, size: int = 0) -> Trained:
        """Return m_B trained with an adapter, or as a whole; `size` = 0 is the experiment's own."""
        config, needs = self.config, ["data", *self.anchor.needs]
        choice = CHOICES.get(key, Choice(FULL))
        settings = replace(
            self._built(choice),
            anchor=self.anchor.model,
            dataset=str(self.data / self.files.composition),
            validation=str(self.data / self.files.composition_validation),
            seed=seed,
        )
        if choice.method != FULL and config.equal_parameters and not size:
            settings = replace(settings, match=str(self.out / "calm"))
            needs.append("calm")
        elif choice.method != FULL:
            settings = replace(settings, size=size or _size_of(choice.method, config))
        stage = stage_in(self.out, name, ("baseline", choice.method), settings, tuple(needs))
        return Trained(seed, name, str(stage.folder), (stage,))

    def _built(self, choice: Choice) -> BaselineConfig:
        """Return the settings of an adapter's training, with where it sits and how it is built."""
        settings = self.config.baseline.for_method(choice.method)
        if choice.method == FULL or not self.config.published:
            return replace(settings, where=choice.where)
        if choice.method == "lora":
            settings = replace(settings, dropout=PUBLISHED_LORA_DROPOUT)
        elif "init" in ADAPTERS[choice.method].takes:
            settings = replace(settings, init="published")
        places = {"targets": (choice.targets,)} if choice.targets else {"where": choice.where}
        return replace(settings, **places)


def own_sizes(config: ReproduceAdaptersConfig) -> dict[str, float | None]:
    """Return the size that the compared method has, by the group of its variants; empty without the study of sizes."""
    if not config.ablate or config.equal_parameters:
        return {}
    return {group: float(_size_of(method, config)) for group, method in METHOD_OF.items() if method in config.compare}


def _size_of(method: str, config: ReproduceAdaptersConfig) -> int:
    return next(int(getattr(config, setting)) for setting, methods in SIZES.items() if method in methods)
