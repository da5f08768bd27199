"""Results of reference solutions: computed once, in a confined process, and stored in a file that judges read.

A file has for each input the seconds and the length of the result (`<dQ`), then that many bytes of a compressed pickle;
an impossible length marks the end. Only judges, which are confined, unpickle.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

from evals.sandbox import confinement

_HEADER = struct.Struct("<dQ")
_END = 2**64 - 1
descriptor = -1
"""The open results file for the program that this process judges; the program itself never has it."""


def main() -> None:
    """Write the results of one reference solution to stdout; `sys.argv` and stdin are as those of a judge."""
    settings = json.loads(sys.argv[1])
    confinement.prepare(settings)
    confinement.confine(settings)
    job = json.loads(sys.stdin.buffer.read())
    sys.path += settings["site"]
    file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep prints of the solution out of the results
    namespace: dict[str, Any] = {}
    exec(job["code"], namespace)
    for arguments in eval(job["inputs"], {"inf": float("inf"), "nan": float("nan")}):
        began = time.perf_counter()
        result = namespace[job["entry_point"]](*copy.deepcopy(arguments))
        seconds = time.perf_counter() - began
        content = zlib.compress(pickle.dumps(result is not None if job["as_truth"] else result, 5), 1)
        file.write(_HEADER.pack(seconds, len(content)) + content)
    file.write(_HEADER.pack(0.0, _END))
    file.close()
    os._exit(0)


def is_whole(content: bytes) -> bool:
    """Return whether the results end with the end mark."""
    return content.endswith(_HEADER.pack(0.0, _END))


def results() -> Iterator[tuple[float, bytes]]:
    """Yield for each input the reference's seconds and its result, to be unpacked by `load`."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        while True:
            seconds, length = _HEADER.unpack(file.read(_HEADER.size))
            if length == _END:
                return
            yield seconds, file.read(length)


def load(content: bytes) -> Any:
    """Unpack a result."""
    return pickle.loads(zlib.decompress(content))
