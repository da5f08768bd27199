"""The plan of a baseline, worked out from configurations without loading or allocating any weights."""

from collections import Counter
from typing import Any

from calmctl.baselines.building import sizes_for
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.jobs import check, matching, target_parameters
from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.config import to_dict
from calmctl.modeling.sources import base_config, without_weights
from calmctl.training.plan import count_parameters, describe, training_memory


def plan_baseline(config: BaselineConfig) -> dict[str, Any]:
    """Return the plan of `calmctl baseline`: how large the adapters are, and how near that is to what is wanted.

    Raises:
        UserError: what the training would refuse before it loads any weights.
    """
    check(config)
    target, settings = target_parameters(config), config.settings()
    anchor = base_config(config.anchor)
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
        "memory_bytes": training_memory(total, trainable, settings),
        "train": to_dict(settings),
    }
