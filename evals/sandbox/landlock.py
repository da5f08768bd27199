"""Restrict the files that a process may open, by Landlock (Linux 5.13 or newer; needs no privileges)."""

import ctypes
import os
import struct
from collections.abc import Sequence

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by ABI version; 16 in later ones
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# Rights besides reading and writing: remove, make folders, files and symbolic links, move, truncate.
_CHANGE_FOLDER = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
_O_PATH = 0o10000000


def restrict_files(readable: Sequence[str], writable: str) -> None:
    """Restrict this process to reading below the `readable` paths, and reading and writing below `writable`.

    Raises:
        OSError: the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    rights = (1 << _NUM_RIGHTS.get(_check(libc.syscall(_CREATE, None, 0, 1)), 16)) - 1
    attributes = struct.pack("<Q", rights)
    ruleset = _check(libc.syscall(_CREATE, attributes, len(attributes), 0))
    allowed = dict.fromkeys(readable, _EXECUTE | _READ_FILE | _READ_FOLDER)
    allowed[os.devnull] = _READ_FILE | _WRITE_FILE
    allowed[writable] = (_READ_FILE | _READ_FOLDER | _WRITE_FILE | _CHANGE_FOLDER) & rights
    for path, access in allowed.items():
        if not os.path.exists(path):
            continue
        access &= ~0 if os.path.isdir(path) else ~_READ_FOLDER
        descriptor = os.open(path, _O_PATH | os.O_CLOEXEC)
        _check(libc.syscall(_ADD, ruleset, 1, struct.pack("<Qi", access, descriptor), 0))
        os.close(descriptor)
    _check(libc.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
