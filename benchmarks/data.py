"""Speed and peak memory of `calmctl data ntl` and `calmctl data code`, on generated text.

python benchmarks/data.py ntl --megabytes 25 100 --workers 1 --tests FLORES
python benchmarks/data.py code --megabytes 10 40 --workers 1 --tests BENCHMARKS
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
FILE_BYTES = 8000
LETTERS = np.array(list("abcdefghilmnoprstuvz"))


def main() -> None:
    """Build data of each size in a fresh process; print a line per size, then all as JSON."""
    arguments = _arguments()
    results = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            write = write_text if arguments.builder == "ntl" else write_code
            write(Path(folder) / "source", megabytes * 1_000_000)
            results.append({"megabytes": megabytes, **_measured(Path(folder), arguments)})
            print("  ".join(f"{name} {value:.0f}" for name, value in results[-1].items()), flush=True)
    print(json.dumps(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builder", choices=["ntl", "code"])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--tests", default="", help="FLORES-200, or a folder of humaneval, mbpp and codexglue; none: no comparison"
    )
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build is not None:  # the process that is measured
        build(arguments)
        sys.exit()
    return arguments


def _measured(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    began, before = time.monotonic(), _children()
    options = ["--workers", str(arguments.workers), "--tests", arguments.tests, "--build", str(folder)]
    command = [sys.executable, __file__, arguments.builder, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = _children()
    own, of_a_worker = (kilobytes / 1024 for kilobytes in json.loads(done.stdout))
    return {
        "seconds": time.monotonic() - began,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mib": own,
        "peak_mib_of_a_worker": of_a_worker,
    }


def _children() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def build(arguments: argparse.Namespace) -> None:
    """Build data as the command does, and print the peak memory in KiB of this process and of its largest worker."""
    from data_builders.code import build as code_corpus
    from data_builders.ntl import build as ntl
    from data_builders.progress import Progress

    folder, tests = arguments.build, arguments.tests or None
    progress = Progress(lambda line: print(line, file=sys.stderr))
    source, out = str(folder / "source"), folder / "data"
    if arguments.builder == "ntl":
        text = ntl.NTLDataConfig(
            aug=ntl.CorporaConfig(parallel=(source,)), flores=tests, check_overlap=tests is not None,
            vocab_size=2000, tokenizer_bytes=2_000_000,
        )  # fmt: skip
        ntl.build(text, out, progress, arguments.workers)
    else:
        off = None if tests else "off"
        code = code_corpus.CodeDataConfig(
            sources=(source,), tests=tests, humaneval=off, mbpp=off, codexglue=off, licences="any",
            vocab_size=2000, tokenizer_bytes=2_000_000,
        )  # fmt: skip
        code_corpus.build(code, out, progress, arguments.workers)
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _children().ru_maxrss]))


def write_text(folder: Path, num_bytes: int) -> None:
    """Write aligned files of English and the other languages, in made-up words; no sentence occurs twice."""
    folder.mkdir()
    rng, words = _words()
    for code in ("eng_Latn", *LANGUAGES):
        with (folder / code).open("w") as stream:
            lines = num_bytes // (len(LANGUAGES) + 1) // 150
            for start in range(0, lines, 10_000):
                drawn = words[rng.integers(0, len(words), (min(10_000, lines - start), 20))]
                stream.writelines(f"{' '.join(line)} {code}\n" for line in drawn)


def write_code(folder: Path, num_bytes: int) -> None:
    """Write Python files of functions with docstrings, in made-up words; no two files are alike."""
    rng, words = _words()
    for number in range(num_bytes // FILE_BYTES):
        functions: list[str] = []
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


def _words() -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng, np.array(["".join(rng.choice(LETTERS, rng.integers(3, 9))) for _ in range(20_000)])


if __name__ == "__main__":
    main()
