"""Where models and composition of an experiment on real text depart from the paper, by its configuration."""

from transformers import AutoConfig

from calmctl.baselines.methods import METHODS
from calmctl.config import to_dict
from calmctl.experiments.section_config import SectionConfig, is_used_as_it_is
from calmctl.modeling import layers
from calmctl.training.configs import TrainConfig

PAPER_EVERY = 4


def section_deviations(config: SectionConfig) -> list[str]:
    """Return a sentence for each departure."""
    compose, bridge = config.compose, config.compose.bridge
    found = [
        f"m_B is {_model(config.anchor)}; the paper's is PaLM2-S as it is",
        f"m_A is {_model(config.aug)}; the paper's is PaLM2-XXS, trained further on the domain",
    ]
    extras = {
        "an RMS norm on the projected states": bridge.norm,
        "rotary positions": bridge.rotary,
        "a zero-initialised output": bridge.zero_init,
        f"{bridge.num_heads} heads whatever m_B has": bridge.num_heads is not None,
    }
    if any(extras.values()):
        found.append(f"bridges have {', '.join(name for name, on in extras.items() if on)}")
    if compose.connections is not None:
        found.append(f"connections are {compose.connections} instead of every {PAPER_EVERY}th layer of m_A")
    elif compose.num is not None:
        found.append(f"{compose.num} connections instead of one per {PAPER_EVERY} layers of m_A")
    elif compose.every != PAPER_EVERY:
        found.append(f"every={compose.every}: a connection per {compose.every} layers of m_A instead of {PAPER_EVERY}")
    if set(METHODS) & set(config.compare) and (unequal := _unequal(config)):
        found.append(f"other methods are not trained as CALM is: {', '.join(unequal)}")
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
    settings = {name: value for name, value in config.model.items() if name != "attn_implementation"}
    model = AutoConfig.for_model(settings.pop("model_type"), **settings)
    shape = f"a {layers.num_layers(model)}-layer {model.model_type} of width {layers.hidden_size(model)}"
    return f"{shape}, trained from scratch"
