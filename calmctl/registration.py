"""Register our models with transformers' Auto classes after `import calmctl`, without importing torch.

Registration needs transformers and torch, which `import calmctl` must not load. So an import hook waits until somebody
imports the Auto classes, and registers at the end of that import. If one of our own modules imports them, it waits for
the end of the outermost one, because until then the modules to register may be half loaded.
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
# (module, class) of each configuration and its model.
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
        # `register` does not fill the table in which the Trainer looks up the models whose labels it has to shift.
        loaded.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_of(configuration).model_type] = model[1]


def _of(place: tuple[str, str]) -> Any:
    return getattr(importlib.import_module(place[0]), place[1])


# Module -> what to do once it is loaded; configurations first, because models are registered by configuration.
_WAITING: dict[str, Callable[[], None]] = {_CONFIGURATIONS: _register_configurations, _MODELS: _register_models}


class _Finder(threading.local):
    """An import hook that finds modules as Python does, and calls `_act` when a thread's outermost one is loaded."""

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
    """Register the classes whose Auto classes are loaded by now."""
    for module in [name for name in _WAITING if name in sys.modules]:
        if register := _WAITING.pop(module, None):
            register()


def register_when_used() -> None:
    """Register our models with the Auto classes as soon as these are imported (now, if they already are)."""
    sys.meta_path.insert(0, _Finder())
    _act()
