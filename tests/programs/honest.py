"""Programs that do their task, or fail to, in all the ways that Python has; the plain reference harness is their judge.

Files of `honest/` have programs separated by `===`; in each, `---` separates the program from its tests.
"""

from pathlib import Path

GROUPS = ("plain", "library", "objects", "functions", "changes", "errors")


def programs() -> dict[str, tuple[str, str]]:
    """Return programs and tests by name: the group and a number."""
    found = {}
    for group in GROUPS:
        text = (Path(__file__).parent / "honest" / f"{group}.txt").read_text(encoding="utf-8")
        for number, program in enumerate(text.strip("\n").split("\n===\n")):
            code, _, tests = program.partition("\n---\n")
            found[f"{group}_{number}"] = (code, tests)
    return found
