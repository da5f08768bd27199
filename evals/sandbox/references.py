"""Reference solutions of a data set, and the cache of their results, keyed by solution and inputs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from data_builders.errors import UserError
from data_builders.workers import usable_cores
from evals.sandbox.detection import detect
from evals.sandbox.expected import is_whole
from evals.sandbox.program import Limits
from evals.sandbox.supervisor import ask

_FORMAT = 1
_LIMITS = Limits(timeout=600.0, memory=4 * 2**30)


@dataclass(frozen=True)
class Reference:
    """A correct solution and its inputs.

    Attributes:
        name: name of the problem, for messages.
        code: defines `entry_point`.
        inputs: Python source of the list of argument lists.
        as_truth: store only whether a result is not None.
    """

    name: str
    code: str
    entry_point: str
    inputs: str
    as_truth: bool = False


def expected_results(references: Sequence[Reference], on_result: Callable[[int], None] | None = None) -> list[str]:
    """Return the path of each reference's results; compute missing ones in parallel.

    Args:
        on_result: called with the number of references done so far.

    Raises:
        UserError: a reference fails.
    """
    paths = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for path in pool.map(_kept, references):
            paths.append(str(path))
            if on_result:
                on_result(len(paths))
    return paths


def _kept(reference: Reference) -> Path:
    facts = [_FORMAT, platform.python_version_tuple()[:2], asdict(reference)]
    path = _folder() / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.results"
    if path.exists():
        return path
    output, errors = ask(json.dumps(asdict(reference)).encode(), _LIMITS, detect(), "expected")
    if not is_whole(output):
        said = errors.decode(errors="replace").strip().splitlines()
        why = said[-1][:300] if said else f"it does not end in {_LIMITS.timeout:g} s"
        raise UserError(f"{reference.name}: the reference solution fails ({why}); is it the right file?")
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(output)
    os.replace(file.name, path)
    return path


@cache
def _folder() -> Path:
    """Return the folder of the results: in the user's cache or, if that is not writable, a temporary one."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calmctl" / "expected"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    _temporary.append(tempfile.TemporaryDirectory(prefix="calmctl-expected-"))
    return Path(_temporary[-1].name)


_temporary: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends
