"""The metrics as `evaluate` modules, loaded from this package: nothing is looked up or downloaded."""

from pathlib import Path
from typing import Any

from data_builders.errors import UserError

FOLDER = Path(__file__).parent
PREFIX = "evaluate_"


def load_metric(name: str) -> Any:
    """Return `evaluate.load` of a metric of ours by its name; raises UserError for a name that is none."""
    files = {file.stem.removeprefix(PREFIX): file for file in sorted(FOLDER.glob(f"{PREFIX}*.py"))}
    if name not in files:
        raise UserError(f"metric: {name!r} is not one of {', '.join(files)}")
    import evaluate

    return evaluate.load(str(files[name]))
