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

# Module of transformers -> ours that register with it when imported.
REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": (
        "calmctl.modeling.configuration",
        "calmctl.baselines.configuration",
    ),
    "transformers.models.auto.modeling_auto": ("calmctl.modeling.composed", "calmctl.baselines.adapted"),
}


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader, registering_modules: Sequence[str]) -> None:
        self.loader = loader
        self.registering_modules = registering_modules

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        for name in self.registering_modules:
            importlib.import_module(name)


class _AutoClassesFinder(MetaPathFinder):
    def __init__(self) -> None:
        self.pending = dict(REGISTRATIONS)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        registering_modules = self.pending.pop(name, None)
        if registering_modules is None:
            return None
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, registering_modules)
        return spec


def register_when_used() -> None:
    """Register our models with the Auto classes as soon as these are imported (now, if they already are)."""
    for auto_module, registering_modules in REGISTRATIONS.items():
        for name in registering_modules if auto_module in sys.modules else ():
            importlib.import_module(name)
    sys.meta_path.insert(0, _AutoClassesFinder())
