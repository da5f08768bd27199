"""Where models and bridges depart from the paper, in every experiment alike."""

from typing import Any

from transformers import AutoConfig

from calmctl.modeling import layers
from calmctl.training.configs import ComposeConfig

PAPER_EVERY = 4


def composition_deviations(compose: ComposeConfig) -> list[str]:
    """Return a sentence for each departure of bridges and connections."""
    bridge, found = compose.bridge, []
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
    return found


def shape_of(model: dict[str, Any]) -> str:
    """Return what the settings of a model from scratch make of it, in words."""
    settings = {name: value for name, value in model.items() if name != "attn_implementation"}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return f"a {layers.num_layers(config)}-layer {config.model_type} of width {layers.hidden_size(config)}"
