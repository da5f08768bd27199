"""How fast `calmctl data ntl` is, and how much memory it takes, over generated text of growing size.

python benchmarks/ntl_data.py --megabytes 25 100 --workers 1
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

LANGUAGES = ("lij_Latn", "fur_Latn", "ban_Latn")
ONE = """
import json, resource, sys
from pathlib import Path
from data_builders.ntl import CorporaConfig, NTLDataConfig, build
from data_builders.progress import Progress

folder, flores, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = NTLDataConfig(
    aug=CorporaConfig(parallel=(str(folder / "text"),)),
    flores=flores or None,
    check_overlap=bool(flores),
    vocab_size=2000,
    tokenizer_bytes=2_000_000,
)
build(config, folder / "data", Progress(lambda line: print(line, file=sys.stderr)), workers)
of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(json.dumps([resource.getrusage(each).ru_maxrss for each in of]))
"""


def main() -> None:
    """Build data of each size in a process of its own, and print a table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--flores", default="", help="FLORES-200 to compare with; none: no comparison")
    arguments = parser.parse_args()
    results = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "text", megabytes * 1_000_000)
            began, processor = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-c", ONE, folder, arguments.flores, str(arguments.workers)]
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
    """Write English and the other languages, aligned, of made-up words; no sentence twice."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghilmnoprstuvz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(20_000)])
    for code in ("eng_Latn", *LANGUAGES):
        with (folder / code).open("w") as stream:
            lines = num_bytes // (len(LANGUAGES) + 1) // 130
            for start in range(0, lines, 10_000):
                drawn = words[rng.integers(0, len(words), (min(10_000, lines - start), 20))]
                stream.writelines(f"{' '.join(line)} {code}\n" for line in drawn)


if __name__ == "__main__":
    main()
