"""Processor time of commands that answer at once: help, mistakes, plans.

Run `python benchmarks/startup.py [--anchor DIR --aug DIR] [--json FILE]`; with two models also the plans about them.
Each figure is the least user and system time of several runs in turns, so that other programs hardly matter; a bare
Python and what transformers takes to import its models stand first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CALMCTL = (sys.executable, "-m", "calmctl")
IMPORT = "import gc; gc.disable(); import transformers; transformers.PreTrainedModel; gc.freeze()"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import of transformers' models": [sys.executable, "-c", IMPORT],
    "calmctl --help": [*CALMCTL, "--help"],
    "calmctl train --help": [*CALMCTL, "train", "--help"],
    "calmctl eval (missing argument)": [*CALMCTL, "eval"],
    "calmctl ls presets": [*CALMCTL, "ls", "presets"],
    "plan: reproduce kv": [*CALMCTL, "reproduce", "kv", "--preset", "smoke", "--out", "out", "--dry-run"],
}


def plans(anchor: Path, aug: Path, folder: Path) -> dict[str, list[str]]:
    """Return the plans about two models, over data that is written into a folder."""
    rows = [{"prompt": f"{row} plus one?", "completion": f" {row + 1}"} for row in range(500)]
    (data := folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours, theirs = str(anchor.resolve()), str(aug.resolve())
    further = ("train", "aug", "--preset", "further", "train.packing=false", "--base")
    commands = {
        "compose": ("compose", "--anchor", ours, "--aug", theirs),
        "train (the anchor)": (*further, ours),
        "train (the aug)": (*further, theirs),
        "baseline lora": ("baseline", "lora", "--anchor", ours, "--parameters", "2000000"),
        "eval (the anchor)": ("eval", "rows", "--model", ours),
        "eval (the aug)": ("eval", "rows", "--model", theirs),
    }
    ends = ("--data", str(data), "--out", str(folder / "out"), "--dry-run")
    return {f"plan: {name}": [*CALMCTL, *command, *ends] for name, command in commands.items()}


def seconds_of(command: list[str], folder: Path, fails: bool) -> float:
    """Return the processor time of a command in seconds; raise RuntimeError if it fails and should not."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not fails:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(command)}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--anchor", type=Path)
    parser.add_argument("--aug", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = dict(COMMANDS)
        if arguments.anchor and arguments.aug:
            commands |= plans(arguments.anchor, arguments.aug, folder)
        seconds = dict.fromkeys(commands, float("inf"))
        for _ in range(arguments.runs):
            for each, command in commands.items():
                seconds[each] = min(seconds[each], seconds_of(command, folder, fails="missing" in each))
    for each, value in seconds.items():
        print(f"{each:<34} {value:6.2f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=2) + "\n")


if __name__ == "__main__":
    main()
