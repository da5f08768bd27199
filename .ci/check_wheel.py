"""Check the contents of a wheel: every module and preset of the checkout is in it, and nothing else."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"calmctl": "calmctl", "conf": "calmctl/conf", "data_builders": "data_builders", "evals": "evals"}
SHIPPED_SUFFIXES = {".py", ".yaml", ".json", ".html", ".j2", ".typed"}


def main(wheel: str) -> int:
    """Compare `wheel` with the checkout and return the exit code."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"{target}/{path.relative_to(ROOT / source).as_posix()}"
        for source, target in PACKAGES.items()
        for path in (ROOT / source).rglob("*")
        if path.is_file() and path.suffix in SHIPPED_SUFFIXES
    }
    problems = [f"not in the wheel: {name}" for name in sorted(expected - packed)]
    problems += [f"should not be in the wheel: {name}" for name in sorted(packed - expected)]
    for problem in problems:
        print(f"check_wheel: {problem}", file=sys.stderr)
    print(f"check_wheel: {len(packed)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
