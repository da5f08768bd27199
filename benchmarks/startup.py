"""Start-up time of commands.

Run `python benchmarks/startup.py [--json FILE]`. Each figure is the best of several runs, beside a bare Python start
in the same session.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "calmctl --help": [sys.executable, "-m", "calmctl", "--help"],
    "calmctl train --help": [sys.executable, "-m", "calmctl", "train", "--help"],
    "calmctl eval (missing argument)": [sys.executable, "-m", "calmctl", "eval"],
    "calmctl ls presets": [sys.executable, "-m", "calmctl", "ls", "presets"],
}


def best_of(command: list[str], runs: int) -> float:
    """Return the shortest of `runs` wall-clock times in seconds."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds = {name: best_of(command, arguments.runs) for name, command in COMMANDS.items()}
    bare = seconds["python -c pass"]
    for name, value in seconds.items():
        print(f"{name:<34} {value:6.3f} s  {value / bare:5.1f} x a bare start")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=2) + "\n")


if __name__ == "__main__":
    main()
