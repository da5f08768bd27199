"""Made-up corpora and benchmarks in the layouts of the real ones, for runs where these are not at hand.

python -m tests.toy_benchmarks FOLDER
"""

import shutil
import sys
from pathlib import Path

from tests.code_tree import write_test_sets
from tests.ntl_corpora import write_flores, write_ntrex, write_seed


def write_benchmarks(folder: Path) -> Path:
    """Write what the smoke presets of `calmctl reproduce ntl` and `code` read; returns the folder."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_seed(partial / "nllb_seed")
        write_ntrex(partial / "ntrex")
        write_flores(partial / "flores200")
        write_test_sets(partial)
        partial.rename(folder)  # an interrupted one is not taken for a whole one
    return folder


if __name__ == "__main__":
    print(write_benchmarks(Path(sys.argv[1])))
