"""Makes transformers' Auto classes know our models after `import calmctl`, without importing torch for it.

Registration needs transformers and torch, which `import calmctl` must not load. So it is put off until whoever uses the
Auto classes has imported them: to the end of that import, or of that of the outermost module of ours which began it,
for until then modules that are registered may be half loaded.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_CONFIGURATIONS = "transformers.models.auto.configuration_auto"
_MODELS = "transformers.models.auto.modeling_auto"
# Configuration and model: module and class.
_OURS = (
    (("calmctl.modeling.configuration", "ComposedConfig"), ("calmctl.modeling.composed", "ComposedModelForCausalLM")),
    (("calmctl.baselines.configuration", "AdaptedConfig"), ("calmctl.baselines.adapted", "AdaptedModelForCausalLM")),
)


def _register_configurations() -> None:
    auto = sys.modules[_CONFIGURATIONS].AutoConfig
    for configuration, _ in _OURS:
        auto.register(_of(configuration).model_type, _of(configuration))


def _register_models() -> None:
    loaded = sys.modules[_MODELS]
    for configuration, model in _OURS:
        loaded.AutoModelForCausalLM.register(_of(configuration), _of(model))
        # `register` leaves out the table in which transformers' Trainer looks up whose labels it has to shift.
        loaded.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_of(configuration).model_type] = model[1]


def _of(place: tuple[str, str]) -> Any:
    return getattr(importlib.import_module(place[0]), place[1])


# What is to be done once a module is there; configurations come first, for models are registered by them.
_WAITING: dict[str, Callable[[], None]] = {_CONFIGURATIONS: _register_configurations, _MODELS: _register_models}


class _Finder(threading.local):
    """Finds modules as Python does, and acts when the outermost one is loaded; each thread loads its own."""

    depth = 0

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not _WAITING or not (name in _WAITING or name.startswith("calmctl.")):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_act(module: ModuleType) -> None:
                self.depth += 1
                try:
                    load(module)
                finally:
                    self.depth -= 1
                if self.depth == 0:
                    _act()

            spec.loader.exec_module = load_and_act  # type: ignore[method-assign]
        return spec


def _act() -> None:
    """Register what can be by now."""
    for module in [name for name in _WAITING if name in sys.modules]:
        if register := _WAITING.pop(module, None):
            register()


def register_when_used() -> None:
    """Register our models with the Auto classes as soon as these are imported (now, if they already are)."""
    sys.meta_path.insert(0, _Finder())
    _act()
