"""A program's writable folder on disk, for isolations without bubblewrap (which mounts its own)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from evals.sandbox.program import Limits

_SPACE = 4
"""Limit of the folder's bytes, in file size limits; files removed while open take space but are not counted."""


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a temporary folder; remove it afterwards with everything in it, however deeply nested."""
    folder = tempfile.mkdtemp(prefix="calmctl-")
    try:
        yield folder
    finally:
        _empty(folder)
        os.rmdir(folder)


def is_too_full(folder: str, limits: Limits) -> bool:
    """Return whether a folder exceeds the limit of entries or bytes."""
    entries = size = 0
    folders = [folder]
    while folders:
        try:
            for entry in _scan(folders.pop()):
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:  # the program has removed it meanwhile
            continue
        except OSError:  # such as a path that is too long
            return True
        if entries > limits.entries:
            return True
    return size > _SPACE * limits.file_size


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(path))
    except PermissionError:  # programs can make folders without read permission
        os.chmod(path, 0o700)
        return list(os.scandir(path))


def _empty(folder: str) -> None:
    """Empty a folder by moving nested folders up into it, so that no path gets too long and no recursion too deep."""
    number = 0
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isdir(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for child in os.listdir(path):
                inner = os.path.join(path, child)
                if os.path.isdir(inner) and not os.path.islink(inner):
                    number += 1
                    os.chmod(inner, 0o700)  # needed to move a folder
                    os.rename(inner, os.path.join(folder, f"\n{number}"))
                else:
                    os.unlink(inner)
            os.rmdir(path)
