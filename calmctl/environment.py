"""The environment of a run: versions, hardware, memory and commit, read without importing torch."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from calmctl.version import VERSION
from data_builders.workers import usable_cores

REPORTED_PACKAGES = (
    "calmctl",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "numpy",
    "pyarrow",
    "sacrebleu",
    "evaluate",
)


@dataclass(frozen=True)
class Check:
    """One finding about a machine, an installation or a pair of models."""

    name: str
    status: Literal["ok", "warning", "missing", "refused"]
    """`missing`: calmctl cannot work; `warning`: it can do without; `refused`: the models cannot be composed."""
    detail: str


def package_versions() -> dict[str, str | None]:
    """Return the version of Python and of every package that can change a result; None = not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        versions[name] = installed_version(name)
    if versions["calmctl"] is None:  # a checkout that was never installed
        versions["calmctl"] = VERSION
    return versions


def installed_version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """Return processor, usable cores, memory in bytes and, only if torch is loaded, the names of the GPUs."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_cores": usable_cores(),
        "memory_bytes": total_memory(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in gpus]
    return facts


def total_memory() -> int | None:
    """Return the memory this process may use, in bytes: the container's limit where there is one."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup, or "max"
        return total
    return min(total, limit)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory() -> int | None:
    """Return the largest memory allocated on any GPU so far, in bytes; None without torch or GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def git_commit() -> str | None:
    """Return the commit of the checkout calmctl runs from, `-dirty` if tracked files differ, or None."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit and _git(root, "status", "--porcelain", "--untracked-files=no"):
        return f"{commit}-dirty"
    return commit or None


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None
