"""Whether a change made composed models slower: compares this checkout with another one.

    git worktree add ../before COMMIT
    python benchmarks/versions.py --other ../before [--quick] [--preset llama] [--device cuda] [--json FILE]

Each version composes the same random models (see shapes.py; anchor and aug read the same tokens) in a process of its
own. The two take turns; a round gives one ratio of their times, this version over the other one (see measure.py), and
the median of the rounds counts.

    decode     cached steps of one token, batch 1 and 8
    train      a step of training the bridges, labels on every token
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from measure import clock_of
from shapes import PRESETS

HERE = Path(__file__).parents[1]
CASES = ("decode 1", "decode 8", "train")
# Two percent are allowed for noise.
TARGET = 1.02


class Version:
    """A version of calmctl that runs cases in its own process."""

    def __init__(self, tree: Path, preset: str, device: str) -> None:
        command = [sys.executable, __file__, "--serve", preset, device]
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asked, self._answers = self._process.stdin, self._process.stdout
        found = Path(self._answers.readline().strip())
        if not found.is_relative_to(tree.resolve()):
            raise SystemExit(f"{tree}: the program that runs is that in {found}")

    def seconds(self, case: str) -> float:
        """Run a case once and return its seconds."""
        print(case, file=self._asked, flush=True)
        return float(self._answers.readline())

    def end(self) -> None:
        """End the process."""
        self._asked.close()
        self._process.wait()


def serve(preset_name: str, device: str) -> None:
    """Run the case named by each line of stdin, and answer with its seconds."""
    import composition  # this checkout's benchmark; calmctl is the one of PYTHONPATH

    import calmctl

    print(Path(calmctl.__file__).parent, flush=True)
    setting = composition.Setting(preset_name, device, PRESETS[preset_name].vocabularies[0], "float32")
    anchor, augs = setting.bases()
    model = composition.composed(setting.preset, anchor, *augs)
    works: dict[str, Callable[[], object]] = {}
    for batch in (1, 8):
        step = composition._decoding(setting, model, batch)
        works[f"decode {batch}"] = lambda step=step: [step() for _ in range(8)]
    train, batch = composition._trainer(model), setting.training_batch("all")

    def train_once() -> None:
        train(batch)
        model.eval()

    works["train"] = train_once
    clock = clock_of(device)
    for line in sys.stdin:
        began = clock()
        works[line.strip()]()
        print(clock() - began, flush=True)


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="a checkout of the other version")
    parser.add_argument("--quick", action="store_true", help="seconds: tiny shapes, only to see that it runs")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    if arguments.other is None:
        parser.error("--other: a checkout of the version to compare with")
    preset, rounds = ("quick", 2) if arguments.quick else (arguments.preset, arguments.rounds)
    versions = {
        name: Version(tree, preset, arguments.device) for name, tree in (("this", HERE), ("other", arguments.other))
    }
    rows: list[dict[str, Any]] = []
    for case in CASES:
        taken: dict[str, list[float]] = {name: [] for name in versions}
        for measured in range(-1, rounds):
            # The first one may find other caches, so the order alternates.
            for name in sorted(versions, reverse=measured % 2 == 0):
                found = versions[name].seconds(case)
                if measured >= 0:
                    taken[name].append(found)
        value = median(ours / theirs for ours, theirs in zip(taken["this"], taken["other"], strict=True))
        medians = {name: round(median(values), 5) for name, values in taken.items()}
        rows.append({"preset": preset, "case": case, "value": round(value, 3), "target": TARGET, "seconds": medians})
        print(f"{preset:<8}{case:<10}{value:>8.3f}{TARGET:>8.2f}  {medians}", flush=True)
    for version in versions.values():
        version.end()
    if arguments.json:
        from script import environment

        arguments.json.write_text(
            json.dumps({"environment": environment(arguments.device), "results": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
