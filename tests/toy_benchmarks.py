"""Made-up corpora and benchmarks in the layouts of the real ones, for runs where these are not at hand.

python -m tests.toy_benchmarks FOLDER
"""

import sys
from pathlib import Path

from tests.code_tree import write_test_sets
from tests.ntl_corpora import write_flores, write_ntrex, write_seed


def write_benchmarks(folder: Path) -> Path:
    """Write what the smoke presets of `calmctl reproduce ntl` and `code` read; returns the folder."""
    if not folder.exists():
        write_seed(folder / "nllb_seed")
        write_ntrex(folder / "ntrex")
        write_flores(folder / "flores200")
        write_test_sets(folder)
    return folder


if __name__ == "__main__":
    print(write_benchmarks(Path(sys.argv[1])))
