"""The plan of a baseline, worked out from configurations without loading or allocating any weights."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from calmctl.baselines.building import sizes_for
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.baselines.sizes import difference_percent
from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import without_weights
from calmctl.modeling.configuration import PartsConfig
from calmctl.training.plan import count_parameters, describe, memory_facts, training_memory


def baseline_facts(config: BaselineConfig, anchor: PreTrainedConfig, target: int | None) -> dict[str, Any]:
    """Return what a plan says of a baseline: how large the adapters are, and how near that is to what is wanted.

    Raises:
        UserError: the method does not fit the anchor or the number of parameters.
    """
    settings = config.settings
    if config.method == FULL and isinstance(anchor, PartsConfig):
        raise UserError(f"anchor={config.anchor}: full trains plain models")
    total = trainable = count_parameters(anchor)
    adapters: dict[str, Any] = {}
    if config.method != FULL:
        shape = without_weights(anchor)
        sizes = sizes_for(shape, config.method, target, config.size or None, config.where)
        method = ADAPTERS[config.method]
        units = method.units(shape, config.where or method.where)
        trainable = sum(units[name] * size for name, size in sizes.items())
        total += trainable
        counts = Counter(sizes.values())
        adapters = {"adapters": {f"{method.size} {size}": f"{counts[size]} modules" for size in sorted(counts)}}
    return {
        "method": config.method,
        "anchor": {"source": config.anchor, **describe(anchor)},
        **adapters,
        "trainable_parameters": trainable,
        **matching(trainable, target),
        "data": config.dataset,
        **memory_facts(training_memory(total, trainable, settings)),
        "train": to_dict(settings),
    }


def matching(trainable: int, target: int | None) -> Mapping[str, Any]:
    """Return what a run says of how near its number of parameters came to the one wanted."""
    if target is None:
        return {}
    return {"matched_parameters": target, "difference_percent": round(difference_percent(trainable, target), 3)}
