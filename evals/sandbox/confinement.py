"""Irrevocable restrictions that a process puts on itself: resource limits, an unprivileged user, no capabilities.

Linux on x86-64 and AArch64 supports all of them; elsewhere only the resource limits apply. `landlock` restricts the
files, `system_calls` the system calls.
"""

import ctypes
import os
import resource
import secrets
import signal
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evals.sandbox.landlock import restrict_files
from evals.sandbox.system_calls import restrict_system_calls

_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 3, 4, 8
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
_MAY_READ = 1 << 2  # CAP_DAC_READ_SEARCH
_UNUSED_USERS = range(0x70000000, 0x80000000)  # No distribution, container or service manager assigns these ids.
_NOBODY = 65534
_READ_ONLY, _NO_SET_ID, _NO_DEVICES, _NO_PROGRAMS, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096  # Flags of mount(2).
_NEW_MOUNTS = 0x20000
_ENDING_SECONDS = 2.0
_STACK = 8 * 2**20
# Without these, linear algebra starts a thread per core, whose stacks exceed the memory limit, and local time depends
# on the machine.
_ENVIRONMENT = {
    "TZ": "UTC",
    **dict.fromkeys(
        ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "RAYON_NUM_THREADS"], "1"
    ),
}


def prepare(settings: Mapping[str, Any]) -> None:
    """Prepare a fresh process: mount its folder, leave root, limit resources, clear the environment.

    Args:
        settings: as `Isolation.command` makes them.

    Raises:
        OSError: a step is impossible on this machine.
    """
    if settings["scratch"]:
        _mount_scratch(**settings["scratch"])
    _leave_root(settings["folder"])
    die_with_parent()
    if not settings["seccomp"] and sys.platform == "linux":  # adopt orphans, for `end_descendants`
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    limit_resources(**settings["limits"])
    os.environ.clear()
    for name, value in _ENVIRONMENT.items():
        os.putenv(name, value)  # only C libraries see it; `os.environ` stays empty


def confine(settings: Mapping[str, Any]) -> None:
    """Give up for good, in this process and its children, every right that a program does not need.

    Raises:
        OSError: a step is impossible on this machine.
    """
    die_with_parent()
    limit_processes(settings["processes"])
    drop_privileges()
    if settings["landlock"]:
        restrict_files(settings["readable"], settings["folder"])
    if settings["seccomp"]:
        restrict_system_calls(settings["writing"])


def limit_resources(memory: int, cpu_seconds: int, file_size: int) -> None:
    """Limit address space and file size (bytes), processor time, stack and descriptors, for good.

    Raises:
        OSError: a hard limit of the machine is lower, so programs could fail that pass elsewhere.
    """
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for which, value in limits.items():
        hard = resource.getrlimit(which)[1]
        if value > hard != resource.RLIM_INFINITY:
            raise OSError(
                f"a hard limit of this machine (ulimit -H -a) is {hard}, where programs get {value}; raise it"
            )
        resource.setrlimit(which, (value, value))


def limit_processes(number: int) -> None:
    """Limit the user's processes and threads, checked when this process starts one; the kernel exempts root.

    Args:
        number: allowed on top of all tasks of the machine, as the user's other processes count too; 0 = none.
    """
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    number += _tasks_of_the_machine() if number else 0
    number = number if hard == resource.RLIM_INFINITY else min(number, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (number, number))


def _tasks_of_the_machine() -> int:
    try:
        with open("/proc/loadavg") as stream:
            return int(stream.read().split()[3].partition("/")[2])
    except OSError:
        return 0


def end_descendants(child: int) -> None:
    """Kill a child and, as far as the kernel lists them, the processes that it left behind."""
    deadline = time.monotonic() + _ENDING_SECONDS
    remaining = [child]
    while remaining and time.monotonic() < deadline:
        for process in remaining:
            os.kill(process, signal.SIGKILL)
        for process in remaining:
            os.waitpid(process, 0)
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as stream:
                remaining = [int(number) for number in stream.read().split()]
        except OSError:
            return


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, and make its memory unreadable to others (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def private_memory() -> Iterator[None]:
    """Within the block, keep the user's other processes from reading this one's memory and descriptors (Linux)."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)


def _mount_scratch(folder: str, size: int, entries: int, kept: Sequence[str]) -> None:
    """Mount a private tmpfs over `folder`, limited to `size` bytes and `entries` files and folders.

    A tmpfs of bubblewrap would not limit empty files, which take the kernel's memory.

    Args:
        kept: paths below the folder that stay visible, read-only (such as Python's packages).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_NEW_MOUNTS))
    links = {path: os.readlink(path) for path in kept if os.path.islink(path)}
    held = {path: os.open(path, os.O_PATH) for path in kept if path not in links}
    options = f"size={size},nr_inodes={entries},mode=1777".encode()
    flags = _NO_SET_ID | _NO_DEVICES | _NO_PROGRAMS
    _check(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, options))
    for path, target in links.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
    for path, descriptor in held.items():
        os.makedirs(path)
        _check(libc.mount(f"/proc/self/fd/{descriptor}".encode(), path.encode(), None, _BIND, None))
        how = _BIND | _REMOUNT | _READ_ONLY | _NO_SET_ID | _NO_DEVICES
        _check(libc.mount(None, path.encode(), None, how, None))
        os.close(descriptor)
    os.chdir(folder)


def _leave_root(folder: str | None) -> None:
    """If root, become a user that owns nothing, if possible: the kernel's limits do not apply to root.

    Python may be installed where only root can read it (`/root`), so the capability to read all files is kept.

    Args:
        folder: made this user's property.
    """
    if sys.platform != "linux" or os.geteuid() != 0 or not (_MAY_READ & _capabilities() or _is_python_public()):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for user in (_UNUSED_USERS.start + secrets.randbelow(len(_UNUSED_USERS)), _NOBODY):
        try:
            if folder:
                os.chown(folder, user, user)
            os.setgroups([])
            _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # a container that lacks the user, or the right to become it
            continue
        _set_capabilities(_MAY_READ & _capabilities())
        return


def _is_python_public() -> bool:
    """Return whether every user can read Python's own modules."""
    library = Path(os.__file__).resolve().parent
    return all(folder.stat().st_mode & 0o001 for folder in (library, *library.parents))


def drop_privileges() -> None:
    """Drop all capabilities, and the means to gain any (Linux); a process that left root keeps the one for reading."""
    if sys.platform == "linux":
        _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _set_capabilities(_MAY_READ & _capabilities() if os.geteuid() != 0 else 0)


def _capabilities() -> int:
    """Return the lower 32 permitted capabilities of this process, as bits."""
    answer = ctypes.create_string_buffer(24)
    _check(ctypes.CDLL(None, use_errno=True).capget(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), answer))
    return int(struct.unpack("<6I", answer.raw)[1])


def _set_capabilities(bits: int) -> None:
    sets = struct.pack("<6I", bits, bits, 0, 0, 0, 0)  # effective, permitted, inheritable: lower halves, then upper
    _check(ctypes.CDLL(None, use_errno=True).capset(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), sets))


def _check(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
