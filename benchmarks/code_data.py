"""How fast `calmctl data code` is, and how much memory it takes, over generated source trees of growing size.

python benchmarks/code_data.py --megabytes 10 40 --workers 1 --tests BENCHMARKS
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FILE_BYTES = 8000
ONE = """
import json, resource, sys
from pathlib import Path
from data_builders.code_corpus import CodeDataConfig, build
from data_builders.progress import Progress

folder, tests, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
off = None if tests else "off"
config = CodeDataConfig(
    sources=(str(folder / "source"),), tests=tests or None, humaneval=off, mbpp=off, codexglue=off,
    licences="any", vocab_size=2000, tokenizer_bytes=2_000_000,
)
build(config, folder / "data", Progress(lambda line: print(line, file=sys.stderr)), workers)
of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(json.dumps([resource.getrusage(each).ru_maxrss for each in of]))
"""


def main() -> None:
    """Build data of each size in a process of its own, and print a table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tests", default="", help="folder of humaneval, mbpp and codexglue; none: no comparison")
    arguments = parser.parse_args()
    results = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "source", megabytes * 1_000_000)
            began, processor = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-c", ONE, folder, arguments.tests, str(arguments.workers)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            peak = [kilobytes / 1024 for kilobytes in json.loads(done.stdout)]
            results.append(
                {
                    "megabytes": megabytes,
                    "seconds": time.monotonic() - began,
                    "processor_seconds": after.ru_utime + after.ru_stime - processor.ru_utime - processor.ru_stime,
                    "peak_mib": peak[0],
                    "peak_mib_of_a_worker": peak[1],
                }
            )
            print("  ".join(f"{name} {value:.0f}" for name, value in results[-1].items()), flush=True)
    print(json.dumps(results))


def write(folder: Path, num_bytes: int) -> None:
    """Write Python files of functions with docstrings, of made-up words; no file like another."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghilmnoprstuvz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(20_000)])
    for number in range(num_bytes // FILE_BYTES):
        functions = []
        while sum(map(len, functions)) < FILE_BYTES:
            name, argument, found, *rest = rng.choice(words, 24)
            functions.append(
                f"def {name}_{number}({argument}):\n"
                f'    """Return the {" ".join(rest[:14])} of it."""\n'
                f"    # The {' '.join(rest[14:])} is for the caller.\n"
                f"    {found} = [{rest[0]}.{rest[1]}({argument}, {rest[2]}) for {rest[0]} in {argument}]\n"
                f"    if {found}:\n        return {rest[3]}({found}, {rest[4]}={rest[5]!r}) + {rest[6]}\n"
                f"    return None\n\n\n"
            )
        path = folder / f"{number // 1000:04d}" / f"file{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(functions))


if __name__ == "__main__":
    main()
