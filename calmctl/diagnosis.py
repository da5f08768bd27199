"""The checks behind `calmctl doctor`: Python, packages, torch, hardware, sandbox and presets of this machine."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from calmctl import environment
from calmctl.environment import Check
from data_builders.workers import usable_cores

MINIMUM_PYTHON = (3, 11)
_LOW_DISK_BYTES = 2 * 1024**3
# The newest version of every dependency with which the tests have passed (`make test-newest`); the oldest is the lower
# bound in pyproject.toml (`make test-oldest`).
NEWEST_TESTED = {
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "evaluate": "0.4.6",
    "hydra-core": "1.3.8",
    "jinja2": "3.1.6",
    "matplotlib": "3.11.2",
    "numpy": "2.4.6",
    "omegaconf": "2.3.1",
    "peft": "0.21.2",
    "psutil": "7.2.2",
    "pyarrow": "26.0.1",
    "pyyaml": "6.0.4",
    "rich": "15.0.0",
    "sacrebleu": "2.6.0",
    "tokenizers": "0.23.3",
    "torch": "2.14.1",
    "transformers": "5.24.0",
    "typer": "0.29.2",
}


def diagnose() -> list[Check]:
    """Run all checks; takes a few seconds, because it imports torch."""
    return [_python(), *_packages(), *_torch(), *_machine(), _own_evals(), _sandbox(), _presets()]


def lower_bounds() -> dict[str, str]:
    """Return the lower bound of every dependency, from the installed metadata or else from `pyproject.toml`."""
    try:
        requirements = metadata.requires("calmctl") or []
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        if not project.exists():
            return {}
        requirements = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    matches = (re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line) for line in requirements if "extra ==" not in line)
    return {match[1]: match[2] for match in matches if match}


def is_at_least(version: str, bound: str) -> bool:
    """Compare the leading numbers of two versions: `2.13.0+cpu` is at least `2.9`."""
    return _release(version) >= _release(bound)


def _release(version: str) -> list[int]:
    numbers = re.match(r"[\d.]*", version)
    release = [int(part) for part in (numbers[0] if numbers else "").split(".") if part]
    while release and release[-1] == 0:
        release.pop()
    return release


def _python() -> Check:
    found = platform.python_version()
    if sys.version_info[:2] >= MINIMUM_PYTHON:
        return Check("python", "ok", found)
    wanted = ".".join(str(part) for part in MINIMUM_PYTHON)
    return Check("python", "missing", f"{found}; calmctl needs {wanted} or newer")


def _packages() -> Iterator[Check]:
    for name, bound in sorted(lower_bounds().items()):
        version = environment.installed_version(name)
        if version is None:
            yield Check(name, "missing", f"not installed; pip install '{name}>={bound}'")
        elif not is_at_least(version, bound):
            yield Check(name, "missing", f"{version} is older than {bound}; pip install '{name}>={bound}'")
        elif (newest := NEWEST_TESTED.get(name)) and not is_at_least(newest, version):
            yield Check(name, "warning", f"{version} is newer than all that was tested ({bound} to {newest})")
        else:
            yield Check(name, "ok", f"{version} (tested: {bound} to {newest})")


def _torch() -> Iterator[Check]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build raises anything from ImportError to OSError
        yield Check("torch import", "missing", f"{type(error).__name__}: {error}")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Check("torch build", "ok", f"{torch.__version__}, {build}")
    yield Check("torch threads", "ok", f"{torch.get_num_threads()} of {usable_cores()} usable cores")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        yield Check("GPU", "warning", "none that torch can use; training runs on the CPU")
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if properties.major >= 8 else "no bf16"
        memory = f"{properties.total_memory / 1024**3:.0f} GiB"
        yield Check(f"GPU {index}", "ok", f"{properties.name}, {memory}, {bf16}")
    yield Check("attention", "ok", ", ".join(_attention_backends()))


def _attention_backends() -> list[str]:
    """Return the values of `attn_implementation` that can work here."""
    backends = ["eager", "sdpa"]
    if importlib.util.find_spec("torch.nn.attention.flex_attention") is not None:
        backends.append("flex_attention")
    if importlib.util.find_spec("flash_attn") is not None:
        backends.append("flash_attention_2")
    return backends


def _machine() -> Iterator[Check]:
    cpu = environment.hardware()["cpu"] or "unknown processor"
    yield Check("processor", "ok", f"{cpu}, {usable_cores()} usable cores")
    memory = environment.total_memory()
    yield Check("memory", "ok", "unknown" if memory is None else f"{memory / 1024**3:.1f} GiB")
    free = shutil.disk_usage(Path.cwd()).free
    status: Literal["ok", "warning"] = "ok" if free >= _LOW_DISK_BYTES else "warning"
    yield Check("disk", status, f"{free / 1024**3:.1f} GiB free in {Path.cwd()}")


def _own_evals() -> Check:
    """Check that `evals` is calmctl's own: another distribution has a package of that name."""
    ours = Path(__file__).resolve().parents[1] / "evals"
    spec = importlib.util.find_spec("evals")
    if spec is None or spec.origin is None:
        return Check("evals", "missing", f"the package evals is not installed; it belongs at {ours}")
    found = Path(spec.origin).resolve().parent
    if found == ours:
        return Check("evals", "ok", "calmctl's own")
    return Check("evals", "missing", f"{found} hides calmctl's own at {ours}; uninstall the other one")


def _sandbox() -> Check:
    """Check how programs that a model wrote would be isolated, by a trial of a few tenths of a second."""
    try:
        isolation, why_not_stronger = importlib.import_module("evals.sandbox").find_isolation()
    except ImportError as error:  # another distribution's `evals`
        return Check("code sandbox", "warning", f"cannot be tried: {error}")
    if not why_not_stronger:
        return Check("code sandbox", "ok", isolation.name)
    return Check("code sandbox", "warning", f"{isolation.name} only; {why_not_stronger}")


def _presets() -> Check:
    from calmctl.config import list_presets
    from calmctl.errors import UserError

    try:
        return Check("presets", "ok", f"{len(list_presets())} found")
    except UserError as error:
        return Check("presets", "missing", str(error))
