"""Load the metrics of this package as `evaluate` modules, without network access."""

from pathlib import Path
from typing import Any

from data_builders.errors import UserError

FOLDER = Path(__file__).parent
PREFIX = "evaluate_"


def load_metric(name: str) -> Any:
    """Load a metric of this package by name; raise UserError if there is none of that name."""
    files = {file.stem.removeprefix(PREFIX): file for file in sorted(FOLDER.glob(f"{PREFIX}*.py"))}
    if name not in files:
        raise UserError(f"metric: {name!r} is not one of {', '.join(files)}")
    import evaluate

    return evaluate.load(str(files[name]))
