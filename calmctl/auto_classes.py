"""Makes transformers' Auto classes know our models after `import calmctl`, without importing torch for it.

Registration needs transformers and torch, which `import calmctl` must not load. So it is put off until the Auto
classes themselves are imported, by whoever uses them.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# Module -> ours that registers with transformers when imported, as soon as that module is there. Adapted models follow
# composed ones, for they need what these are made of.
REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": "calmctl.modeling.configuration",
    "transformers.models.auto.modeling_auto": "calmctl.modeling.composed",
    "calmctl.modeling.configuration": "calmctl.baselines.configuration",
    "calmctl.modeling.composed": "calmctl.baselines.adapted",
}


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader, registering_module: str) -> None:
        self.loader = loader
        self.registering_module = registering_module

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module(self.registering_module)


class _AutoClassesFinder(MetaPathFinder):
    def __init__(self) -> None:
        self.pending = dict(REGISTRATIONS)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        registering_module = self.pending.pop(name, None)
        if registering_module is None:
            return None
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, registering_module)
        return spec


def register_when_used() -> None:
    """Register our models with the Auto classes as soon as these are imported (now, if they already are)."""
    for auto_module, registering_module in REGISTRATIONS.items():
        if auto_module in sys.modules:
            importlib.import_module(registering_module)
    sys.meta_path.insert(0, _AutoClassesFinder())
