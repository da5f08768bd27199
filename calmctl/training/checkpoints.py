"""Checkpoints of a training: one that is not marked as whole is never resumed from."""

import shutil
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

COMPLETE_MARK = "complete"
CURRICULUM_FILE = "curriculum.json"


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint below a folder; half-written ones are removed."""
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        if (Path(found) / COMPLETE_MARK).is_file():
            return Path(found)
        shutil.rmtree(found)
    return None
