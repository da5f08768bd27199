"""Imports point one way between the rooms of the house, without cycles, and stay light where they must."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from calmctl.auto_classes import REGISTRATIONS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("calmctl", "data_builders", "evals")

# What reads files, for all rooms.
GROUND = ("data_builders.errors", "data_builders.files", "data_builders.rows")
# Room -> rooms it may import besides itself. `base` is every module directly in calmctl/.
ARROWS = {
    "ground": set(),
    "base": {"ground"},
    "calmctl.modeling": {"ground", "base"},
    "calmctl.training": {"ground", "base", "calmctl.modeling"},
    "calmctl.baselines": {"ground", "base", "calmctl.modeling", "calmctl.training"},
    "calmctl.inference": {"ground", "base", "calmctl.modeling"},
    "calmctl.reporting": {"ground", "base", "calmctl.modeling"},
    "data_builders": {"ground"},
    "evals": {"ground", "data_builders"},
}
ARROWS["calmctl.experiments"] = set(ARROWS)
ARROWS["calmctl.cli"] = set(ARROWS)

FORBIDDEN_THIRD_PARTIES = {"data_builders": {"torch"}, "evals": {"torch"}}
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "hydra",
    "omegaconf",
    "evaluate",
    "pyarrow",
    "numpy",
    "matplotlib",
)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, inside_functions: bool) -> Iterator[str]:
    """Yield every module that a file imports; imports for type checkers do not count."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def room(module: str) -> str:
    parts = module.split(".")
    if module in GROUND:
        return "ground"
    if parts[0] != "calmctl":
        return parts[0]
    is_base = len(parts) == 1 or (len(parts) == 2 and MODULES[module].name != "__init__.py")
    return "base" if is_base else ".".join(parts[:2])


GRAPH = {module: sorted(set(imports(path, inside_functions=True))) for module, path in MODULES.items()}
ENTRY_POINT = "calmctl.__main__"  # `python -m calmctl` is not imported by anything


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_arrows(module: str) -> None:
    if module == ENTRY_POINT:
        return
    allowed = ARROWS[room(module)] | {room(module)}
    wrong = [name for name in GRAPH[module] if name in MODULES and room(name) not in allowed]
    assert not wrong, f"{module} ({room(module)}) may not import {wrong}"
    third_parties = {name.partition(".")[0] for name in GRAPH[module]}
    assert not third_parties & FORBIDDEN_THIRD_PARTIES.get(room(module), set())


def test_no_module_needs_itself_to_load() -> None:
    ours = {
        module: [name for name in imports(path, inside_functions=False) if name in MODULES and name != module]
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_what_is_registered_when_auto_classes_are_imported_needs_no_module_that_imports_them() -> None:
    """Such a module, imported first, would be needed before it is there."""
    reached, pending = set(), [*REGISTRATIONS.values()]
    while pending:
        module = pending.pop()
        if module in MODULES and module not in reached:
            reached.add(module)
            pending += imports(MODULES[module], inside_functions=False)
    names = {
        module: [
            alias.name for node in ast.parse(MODULES[module].read_text()).body for alias in getattr(node, "names", ())
        ]
        for module in reached
    }
    importing = {module for module, found in names.items() if any(name.startswith("Auto") for name in found)}
    assert importing <= set(REGISTRATIONS.values())


def test_importing_the_package_and_its_command_line_stays_light() -> None:
    code = f"import calmctl, calmctl.cli.main, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_data_builders_and_evals_load_without_calmctl_and_torch() -> None:
    # Modules for `evaluate.load` come after `evaluate`, which imports whatever is installed; ours are those beneath.
    names = sorted(
        name for name in MODULES if room(name) in ("ground", "data_builders", "evals") and ".evaluate_" not in name
    )
    # transformers imports torch where it is installed; it is ours that must not need it.
    code = "\n".join(
        [
            "import sys",
            "sys.modules['torch'] = sys.modules['scipy'] = None",  # scipy, where installed, asks for torch by itself
            *(f"import {name}" for name in names),
            "assert not [name for name in sys.modules if name.partition('.')[0] == 'calmctl']",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["calmctl", "data_builders", "evals"])
def test_the_packages_imported_are_ours(name: str) -> None:
    origin = __import__(name).__file__
    assert origin is not None, f"{name}/__init__.py is missing"
    assert Path(origin).resolve().parent == ROOT / name


def test_lazy_names_of_the_package_are_listed_and_others_refused() -> None:
    import calmctl

    assert {"compose", "ComposedConfig", "ComposedModelForCausalLM"} <= set(dir(calmctl))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = calmctl.nothing
