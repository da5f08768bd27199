"""Compose frozen language models through trained cross-attention (CALM).

Importing this package is cheap: classes that need torch are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calmctl.registration import register_when_used
from calmctl.version import VERSION

if TYPE_CHECKING:
    from calmctl.baselines.adapted import AdaptedModelForCausalLM
    from calmctl.baselines.building import adapt
    from calmctl.baselines.configuration import AdaptedConfig
    from calmctl.baselines.options import AdapterOptions
    from calmctl.modeling.composed import ComposedModelForCausalLM
    from calmctl.modeling.composition import compose
    from calmctl.modeling.configuration import ComposedConfig

__version__ = VERSION

__all__ = [
    "AdaptedConfig",
    "AdaptedModelForCausalLM",
    "AdapterOptions",
    "ComposedConfig",
    "ComposedModelForCausalLM",
    "__version__",
    "adapt",
    "compose",
]

_LAZY = {
    "AdaptedConfig": "calmctl.baselines.configuration",
    "AdaptedModelForCausalLM": "calmctl.baselines.adapted",
    "AdapterOptions": "calmctl.baselines.options",
    "ComposedConfig": "calmctl.modeling.configuration",
    "ComposedModelForCausalLM": "calmctl.modeling.composed",
    "adapt": "calmctl.baselines.building",
    "compose": "calmctl.modeling.composition",
}


def __getattr__(name: str) -> Any:
    """Import the module that owns `name` on first access (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'calmctl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted({*globals(), *_LAZY})


register_when_used()
