"""Departures from the paper in words: a sentence for each setting of models, compositions and other methods.

A test checks that every field of `BridgeConfig` and `ComposeConfig` is in BRIDGE, COMPOSITION or NOT_THE_METHOD.
"""

from collections.abc import Callable
from typing import Any

from transformers import AutoConfig

from calmctl.baselines.options import METHODS
from calmctl.config import to_dict
from calmctl.experiments.config import ExperimentConfig, is_used_as_it_is
from calmctl.modeling import layers
from calmctl.modeling.options import BridgeConfig
from calmctl.reporting.systems_table import SYSTEMS
from calmctl.training.configs import ComposeConfig, TrainConfig

PAPER_EVERY = 4


def _gate(bridge: BridgeConfig) -> str:
    if not bridge.gate:
        return ""
    return f"a learned gate, {'closed' if bridge.zero_init else 'open'} at the start"


def _zero_init(bridge: BridgeConfig) -> str:
    # With a gate, only the gate starts at zero; W_O is initialised as in the paper.
    return "a zero-initialised output" if bridge.zero_init and not bridge.gate else ""


def _standardize(bridge: BridgeConfig) -> str:
    if not bridge.standardize:
        return ""
    measure = "the deviations" if bridge.per_dimension else "the root mean square"
    return f"standardised streams to read, and updates of {bridge.share:g} of {measure} of the stream they are added to"


def _connections(compose: ComposeConfig) -> str:
    if compose.connections is None:
        return ""
    return f"connections are {compose.connections} instead of every {PAPER_EVERY}th layer of m_A"


def _num(compose: ComposeConfig) -> str:
    if compose.num is None or compose.connections is not None:
        return ""
    return f"{compose.num} connections instead of one per {PAPER_EVERY} layers of m_A"


def _segmentation(compose: ComposeConfig) -> str:
    if compose.segmentation != "chunks":
        return ""
    return "an m_A with its own tokenizer reads the text of each of m_B's tokens tokenized alone"


def _markers(compose: ComposeConfig) -> str:
    if not compose.markers:
        return ""
    return f"m_A reads special tokens of its own in the place of m_B's {', '.join(compose.markers)}"


def _every(compose: ComposeConfig) -> str:
    if compose.every == PAPER_EVERY or compose.connections is not None or compose.num is not None:
        return ""
    layers_each = "layer" if compose.every == 1 else f"{compose.every} layers"
    return f"every={compose.every}: a connection per {layers_each} of m_A instead of {PAPER_EVERY}"


# Field of BridgeConfig -> function that names what the bridges have and the paper's do not; empty = no difference.
# `share` and `per_dimension` are part of the text of `standardize`.
BRIDGE: dict[str, Callable[[BridgeConfig], str]] = {
    "standardize": _standardize,
    "norm": lambda bridge: "an RMS norm on the projected states" if bridge.norm else "",
    "rotary": lambda bridge: "rotary positions" if bridge.rotary else "",
    "recency": lambda bridge: "learned biases of queries and keys" if bridge.recency else "",
    "gate": _gate,
    "zero_init": _zero_init,
    "dropout": lambda bridge: f"dropout of {bridge.dropout:g} on what they add" if bridge.dropout else "",
    "num_heads": lambda bridge: f"{bridge.num_heads} heads whatever m_B has" if bridge.num_heads is not None else "",
}
# Field of ComposeConfig -> function that returns the departure in words; empty = none.
COMPOSITION: dict[str, Callable[[ComposeConfig], str]] = {
    "bridge": lambda compose: _bridges(compose.bridge),
    "connections": _connections,
    "num": _num,
    "every": _every,
    "aug_reads": lambda compose: "m_A reads prompts only, not what is generated" if compose.aug_reads != "all" else "",
    "segmentation": _segmentation,
    "markers": _markers,
    "random_aug": lambda compose: "m_A has untrained weights" if compose.random_aug else "",
    "init_from": lambda compose: "bridges begin as those of an earlier training" if compose.init_from else "",
    "augs": lambda compose: f"{len(compose.augs)} augs; the paper composes one" if len(compose.augs) > 1 else "",
}
# Fields that are no departure: models, data and hardware are reported elsewhere; the paper gives no training settings.
NOT_THE_METHOD = frozenset(
    {
        "anchor", "dataset", "validation", "attention", "merge_bases", "self_check", "trust_remote_code", "seed",
        "train", "columns", "data_weights",
    }
)  # fmt: skip


def composition_deviations(compose: ComposeConfig) -> list[str]:
    """Return a sentence for each departure of a composition from the paper."""
    return [sentence for say in COMPOSITION.values() if (sentence := say(compose))]


def _bridges(bridge: BridgeConfig) -> str:
    extras = [extra for say in BRIDGE.values() if (extra := say(bridge))]
    return f"bridges have {', '.join(extras)}" if extras else ""


def shape_in_words(model: dict[str, Any]) -> str:
    """Describe the model that settings of one from scratch give: layers, type and width."""
    settings = {name: value for name, value in model.items() if name != "attn_implementation"}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return f"a {layers.num_layers(config)}-layer {config.model_type} of width {layers.hidden_size(config)}"


def real_text_deviations(config: ExperimentConfig) -> list[str]:
    """Return a sentence for each departure of an experiment on real text: models, composition, other methods."""
    found = [
        f"m_B is {model_in_words(config.anchor)}; the paper's is PaLM2-S as it is",
        f"m_A is {model_in_words(config.aug)}; the paper's is PaLM2-XXS, trained further on the domain",
        *composition_deviations(config.compose),
    ]
    if set(METHODS) & set(config.compare):
        found += unequal_training(config)
    found += [
        f"{SYSTEMS[name].label} is trained at {scale:g} times the learning rate of its preset"
        for name, scale in config.baseline.lr_scale.items()
        if name in config.compare and scale != 1
    ]
    return found


def unequal_training(config: ExperimentConfig) -> list[str]:
    """Return a sentence if the training settings of the other methods differ from CALM's."""
    ours, theirs = to_dict(config.compose.train), to_dict(config.baseline.train)
    unequal = [f"{name}={theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
    return [f"other methods are not trained as CALM is: {', '.join(unequal)}"] if unequal else []


def model_in_words(config: TrainConfig) -> str:
    """Return what a model is made from and whether it is trained."""
    if is_used_as_it_is(config):
        return f"{config.base} as it is"
    if config.base:
        return f"{config.base}, trained further"
    return f"{shape_in_words(config.model)}, trained from scratch"
