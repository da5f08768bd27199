"""Training checkpoints: sealed when complete, verified before resuming; old ones go once a new one is sealed.

The seal is a file with the size and SHA-256 of every other file, written once all of them are on the disk. A checkpoint
without a seal does not count. However a process ends, a power failure included, it leaves sealed checkpoints and at
most one without a seal, which is removed later.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from calmctl.errors import CalmctlError, UserError
from calmctl.processes.parent import Interrupted
from calmctl.processes.ranks import current_ranks
from data_builders.files import sha256_of, share_as_umask_says, sync_folder, sync_tree
from data_builders.values import read_json, write_json

SEAL_FILE = "complete.json"
CURRICULUM_FILE = "curriculum.json"
METER_FILE = "meter.json"
KEPT = 2

_LOGGER = logging.getLogger(__name__)


def seal(folder: Path) -> None:
    """Wait until a checkpoint is on the disk, then write its seal."""
    share_as_umask_says(folder)
    sync_tree(folder)
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != SEAL_FILE
    }
    write_json(folder / SEAL_FILE, files)
    for parent in (folder.parent, folder.parent.parent):
        sync_folder(parent)


def damage(folder: Path) -> str | None:
    """Return what is wrong with a sealed checkpoint, or None."""
    try:
        files = read_json(folder / SEAL_FILE)
        for name, known in files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if (size := (folder / name).stat().st_size) != known["bytes"]:
                return f"{name} has {size:,} bytes instead of {known['bytes']:,}"
            if sha256_of(folder / name) != known["sha256"]:
                return f"{name} is not what was written"
    except (UserError, AttributeError, TypeError, KeyError):
        return f"{SEAL_FILE} cannot be read"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint below a folder.

    Newer ones without a seal are removed. Damaged ones are renamed with a warning, so that they can be inspected.
    """
    while found := _by_step(folder):
        checkpoint = found[-1]
        if not (checkpoint / SEAL_FILE).is_file():
            shutil.rmtree(checkpoint)
        elif reason := damage(checkpoint):
            aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
            _LOGGER.warning("%s is damaged (%s): put aside as %s, an earlier one is used", checkpoint, reason, aside)
        else:
            return checkpoint
    return None


def newest_sealed(folder: Path) -> Path | None:
    """Return the newest sealed checkpoint below a folder, without verifying it."""
    return next((path for path in reversed(_by_step(folder)) if (path / SEAL_FILE).is_file()), None)


def _by_step(folder: Path) -> list[Path]:
    """Return the checkpoints below a folder, oldest first, without damaged ones that were renamed."""
    steps = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    return [steps[step] for step in sorted(steps)]


def rotate(folder: Path, best: str | None = None) -> None:
    """Remove all checkpoints but the newest `KEPT` and the best one; the last must be sealed already."""
    for checkpoint in _by_step(folder)[:-KEPT]:
        if best is None or checkpoint.resolve() != Path(best).resolve():
            # The seal first, so that a half-removed checkpoint does not count.
            (checkpoint / SEAL_FILE).unlink(missing_ok=True)
            shutil.rmtree(checkpoint, ignore_errors=True)


@contextmanager
def written_or_removed(folder: Path) -> Iterator[None]:
    """Remove a folder if writing it is interrupted or fails; with several processes the first one removes it.

    Raises:
        CalmctlError: it cannot be written (a full disk, say).
    """
    try:
        yield
    except BaseException as error:
        # Another process may be interrupted while the first one is still sealing the folder.
        if current_ranks().is_first:
            shutil.rmtree(folder, ignore_errors=True)
        if reason := _disk_trouble(error):
            raise CalmctlError(
                f"{folder}: cannot be written ({reason}); make room, then run the same command again to resume"
            ) from error
        raise


@contextmanager
def replaced_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into; it replaces `folder` once it is complete and on the disk.

    Raises:
        CalmctlError: it cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    with written_or_removed(unfinished):
        yield unfinished
        share_as_umask_says(unfinished)
        sync_tree(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    sync_folder(folder.parent)


def _disk_trouble(error: BaseException) -> str | None:
    """Return the reason if an error means that a file could not be written; None for other errors."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, SafetensorError | UserError):
        return " ".join(str(error).split())[:200]
    # torch does not pass on the system's error.
    if isinstance(error, RuntimeError) and re.search("PytorchStreamWriter|inline_container|iostream", str(error)):
        return "torch could not write all of it"
    return None


def interrupted_training(folder: Path) -> Interrupted:
    """Return the error for an interrupted training; its message names the checkpoint saved in `folder`."""
    checkpoint = newest_sealed(folder)
    if checkpoint is None:
        saved = "before there was a checkpoint; run the same command again to start anew"
    else:
        step = checkpoint.name.rpartition("-")[2]
        saved = f"the checkpoint of step {step} is saved; run the same command again to resume"
    return Interrupted(f"interrupted: {saved}")
