"""Time to judge all programs of HumanEval, with every isolation that works here.

Run `python benchmarks/sandbox.py HUMANEVAL [--json FILE]`, where HUMANEVAL is the file or the folder of the data set.
The programs are the canonical solutions; each runs in a fresh interpreter. The target is 12 seconds on 2 cores.
"""

import argparse
import json
import platform
import time
from pathlib import Path

from data_builders.benchmarks.humaneval import read_humaneval
from data_builders.workers import usable_cores
from evals.humaneval import program
from evals.sandbox import Isolation, find_isolation, run_programs

TARGET_SECONDS = 12.0


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="the best counts")
    parser.add_argument("--limit", type=int, help="only the first so many programs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    programs = [program(each, each.canonical_solution) for each in read_humaneval(arguments.data)[: arguments.limit]]
    strongest, why_not = find_isolation()
    isolations = [strongest]
    if strongest.bubblewrap:
        isolations += [Isolation(seccomp=strongest.seccomp, landlock=True), Isolation()]
    if why_not:
        print(f"no stronger isolation: {why_not}")
    rows = []
    print(f"{'isolation':<44}{'programs':>9}{'passed':>8}{'seconds':>9}{'ms each':>9}{'target':>8}")
    for isolation in isolations:
        times = []
        for _ in range(arguments.runs):
            began = time.perf_counter()
            verdicts = run_programs(programs, isolation=isolation)
            times.append(time.perf_counter() - began)
        seconds, passed = min(times), sum(verdict.passed for verdict in verdicts)
        rows.append({"isolation": isolation.name, "programs": len(programs), "passed": passed, "seconds": seconds})
        rows[-1] |= {"target": TARGET_SECONDS, "met": seconds <= TARGET_SECONDS}
        each = 1000 * seconds / len(programs)
        figures = f"{len(programs):>9}{passed:>8}{seconds:>9.2f}{each:>9.1f}{TARGET_SECONDS:>8.0f}"
        print(f"{isolation.name:<44}{figures}  {'met' if rows[-1]['met'] else 'MISSED'}", flush=True)
    if arguments.json:
        environment = {"cores": usable_cores(), "machine": platform.machine(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"environment": environment, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
