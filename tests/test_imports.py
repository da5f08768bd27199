"""Imports point one way between the rooms of the house, without cycles, and stay light where they must."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.structure import MODULES, ROOT, circles, graph, imports

# What reads and writes files, and runs work in processes, for all rooms.
GROUND_FILES = (
    "errors", "files", "values", "row_files", "manifest", "hub", "row_sources", "row_forms", "example_rows", "workers",
)  # fmt: skip
GROUND = tuple(f"data_builders.{name}" for name in GROUND_FILES)
# The package's own names, what registers its classes, what looks at an installation, what lies beside checkpoints.
TOP = ("calmctl", "calmctl.registration", "calmctl.diagnosis", "calmctl.modeling.stored.modeling_calm")
# Room -> rooms it may import besides itself. `base` is every module directly in calmctl/.
FLOOR = {"ground", "base"}
ARROWS = {
    "ground": set(),
    "base": {"ground"},
    "calmctl.processes": FLOOR,
    "calmctl.runs": FLOOR | {"calmctl.processes"},
    "calmctl.modeling": FLOOR | {"calmctl.processes"},
    "calmctl.training": FLOOR | {"calmctl.processes", "calmctl.runs", "calmctl.modeling"},
    "calmctl.baselines": FLOOR | {"calmctl.runs", "calmctl.modeling", "calmctl.training"},
    "calmctl.inference": FLOOR | {"calmctl.modeling", "evals"},
    "calmctl.reporting": FLOOR | {"calmctl.runs"},
    "data_builders": {"ground"},
    "evals": {"ground", "data_builders"},
}
ARROWS["calmctl.evaluation"] = FLOOR | {
    "calmctl.processes", "calmctl.runs", "calmctl.modeling", "calmctl.inference", "evals", "data_builders",
}  # fmt: skip
ARROWS["calmctl.experiments"] = set(ARROWS)
ARROWS["top"] = set(ARROWS)
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


def room(module: str) -> str:
    parts = module.split(".")
    if module in GROUND:
        return "ground"
    if module in TOP:
        return "top"
    if parts[0] != "calmctl":
        return parts[0]
    is_base = len(parts) == 2 and MODULES[module].name != "__init__.py"
    return "base" if is_base else ".".join(parts[:2])


GRAPH = graph()
ENTRY_POINT = "calmctl.__main__"  # `python -m calmctl` is not imported by anything


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_arrows(module: str) -> None:
    if module == ENTRY_POINT:
        return
    allowed = ARROWS[room(module)] | {room(module)}
    wrong = sorted(name for name in GRAPH[module] if room(name) not in allowed)
    assert not wrong, f"{module} ({room(module)}) may not import {wrong}"
    third_parties = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert not third_parties & FORBIDDEN_THIRD_PARTIES.get(room(module), set())


def test_no_module_needs_itself() -> None:
    """Neither when it is loaded nor later: imports in functions and for type checkers count, and names in strings."""
    assert circles(GRAPH) == []


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f", "a"}, "f": {"e"}}
    assert circles(edges) == [["a", "b", "c"], ["e", "f"]]


REGISTERED = """
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names
from calmctl import AdaptedConfig, AdaptedModelForCausalLM, ComposedConfig, ComposedModelForCausalLM
for config, model in ((AdaptedConfig, AdaptedModelForCausalLM), (ComposedConfig, ComposedModelForCausalLM)):
    assert type(AutoConfig.for_model(config.model_type)) is config
    assert AutoModelForCausalLM._model_mapping[config] is model
    assert names[config.model_type] == model.__name__
"""
FIRST = (
    "import transformers.models.auto.configuration_auto; import calmctl",
    "import calmctl; from transformers import AutoConfig; AutoConfig.for_model('calm')",
    "import calmctl.modeling.bases.sources",
    "import importlib, contextlib\nwith contextlib.suppress(ImportError): importlib.import_module('calmctl.nothing')",
)


@pytest.mark.parametrize("first", FIRST)
def test_auto_classes_know_our_models_whatever_is_imported_first(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", first + REGISTERED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


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
