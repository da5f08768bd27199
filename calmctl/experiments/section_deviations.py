"""Where models and composition of an experiment on real text depart from the paper, by its configuration."""

from calmctl.baselines.methods import METHODS
from calmctl.config import to_dict
from calmctl.experiments.composition_deviations import composition_deviations, shape_of
from calmctl.experiments.config import SectionConfig, is_used_as_it_is
from calmctl.experiments.labels import METHOD_LABELS
from calmctl.training.configs import TrainConfig


def section_deviations(config: SectionConfig) -> list[str]:
    """Return a sentence for each departure."""
    found = [
        f"m_B is {_model(config.anchor)}; the paper's is PaLM2-S as it is",
        f"m_A is {_model(config.aug)}; the paper's is PaLM2-XXS, trained further on the domain",
        *composition_deviations(config.compose),
    ]
    if set(METHODS) & set(config.compare) and (unequal := _unequal(config)):
        found.append(f"other methods are not trained as CALM is: {', '.join(unequal)}")
    found += [
        f"{METHOD_LABELS[name]} is trained at {scale:g} times the learning rate of its preset"
        for name, scale in config.baseline.lr_scale.items()
        if name in config.compare and scale != 1
    ]
    return found


def _unequal(config: SectionConfig) -> list[str]:
    """Name the settings in which the training of the methods at CALM's size differs from CALM's own."""
    ours, theirs = to_dict(config.compose.train), to_dict(config.baseline.train)
    return [f"{name}={theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]


def _model(config: TrainConfig) -> str:
    if is_used_as_it_is(config):
        return f"{config.base} as it is"
    if config.base:
        return f"{config.base}, trained further"
    return f"{shape_of(config.model)}, trained from scratch"
