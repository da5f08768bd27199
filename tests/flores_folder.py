"""FLORES as its release has it, with six languages of made-up sentences."""

from pathlib import Path
from typing import Any

from data_builders.benchmarks.flores import ROWS
from evals.flores import FloresRecord, FloresTask

CODES = ("eng_Latn", "fra_Latn", "min_Arab", "min_Latn", "nqo_Nkoo", "zho_Hans")
ODD = "one\u2028line, two \x85 marks"


def sentence(code: str, split: str, row: int) -> str:
    return ODD if (split, row) == ("devtest", 3) else f"{code} says {split} {row}."


def write_flores(folder: Path) -> Path:
    root = folder / "flores200_dataset"
    for split, rows in ROWS.items():
        (root / split).mkdir(parents=True)
        for code in CODES:
            lines = "".join(f"{sentence(code, split, row)}\n" for row in range(rows))
            (root / split / f"{code}.{split}").write_bytes(lines.encode())
    return root


def load(folder: Path, limit: int | None = 3, **options: Any) -> list[FloresRecord]:
    return FloresTask(**options).load(folder, limit)
