"""The folder on this machine's disk in which a program may write where bubblewrap gives it none of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from evals.sandbox.program import Limits

_SPACE = 4
"""How many times the largest file may be in the folder: what is opened and removed is not seen, and takes as much."""


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a folder, and remove it with all that a program left in it, however deep."""
    folder = tempfile.mkdtemp(prefix="calmctl-")
    try:
        yield folder
    finally:
        _empty(folder)
        os.rmdir(folder)


def is_too_full(folder: str, limits: Limits) -> bool:
    """Return whether a program has made more files, folders or bytes than it may."""
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
        except FileNotFoundError:  # The program removes what it has made.
            continue
        except OSError:  # Such as a path that is too long.
            return True
        if entries > limits.entries:
            return True
    return size > _SPACE * limits.file_size


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(path))
    except PermissionError:  # A program can make folders that it does not let itself read.
        os.chmod(path, 0o700)
        return list(os.scandir(path))


def _empty(folder: str) -> None:
    """Remove what is in a folder by lifting the folders in it up to it: no path gets too long, no stack too deep."""
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
                    os.chmod(inner, 0o700)  # to move a folder is to change it
                    os.rename(inner, os.path.join(folder, f"\n{number}"))
                else:
                    os.unlink(inner)
            os.rmdir(path)
