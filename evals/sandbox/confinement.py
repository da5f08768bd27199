"""What a process can do to itself so that nothing it runs later can do harm: limits, capabilities, Landlock, seccomp.

None of it needs privileges. Linux on x86-64 and AArch64 has all of it; elsewhere the resource limits remain.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 3, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_EXECUTE, _LANDLOCK_READ_FILE, _LANDLOCK_READ_DIR = 1 << 0, 1 << 2, 1 << 3
_LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # Number of rights by version of the interface; 16 in later ones.
_O_PATH = 0o10000000

# Architecture -> (its number in audit.h, column of the tables below).
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_EPERM, _EACCES, _ENOSYS = 1, 13, 38

# System calls by number on x86-64 and AArch64 (None: it has none), by what they would allow.
_PROCESSES = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157),
    "setpgid": (109, 154), "prctl": (157, 167), "seccomp": (317, 277), "personality": (135, 92),
}  # fmt: skip
_OTHER_PROCESSES = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "setpriority": (141, 140), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
_NETWORK_AND_IPC = {
    "socket": (41, 198), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
}  # fmt: skip
_KERNEL = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142), "clock_settime": (227, 112),
    "settimeofday": (164, 170), "sethostname": (170, 161), "setdomainname": (171, 162), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
}  # fmt: skip
_WRITING = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45), "ftruncate": (77, 46),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "fallocate": (285, 47),
}  # fmt: skip
_UNKNOWN = {"clone3": (435, 435), "io_uring_setup": (425, 425)}  # libc knows how to do without.
_CLONE, _PRLIMIT, _OPENAT2 = (56, 220), (302, 261), (437, 437)
_SOCKETPAIR, _FCNTL, _IOCTL = (53, 199), (72, 25), (16, 29)
_NEWEST = 462  # What came later, and x32 above it, is unknown here: the kernel is to say that it has none of it.
_NOT_STREAM = 0xE  # Bits of the type of a socket: a pair of datagram sockets can send to any other of the machine.
_F_SETOWN, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 15, 0x8901, 0x8902  # Who gets a descriptor's signals.
_OPEN = {"open": ((2, None), 1), "openat": ((257, 56), 2)}  # number, and which argument has the flags
_CLONE_THREAD = 0x10000
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def limit_resources(memory: int, cpu_seconds: int, file_size: int) -> None:
    """Limit address space and files (bytes) and processor time, for good."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for which, value in limits.items():
        _limit(which, value)


def limit_processes(number: int) -> None:
    """Limit the processes and threads that the user may have when this process starts one; root has no such limit."""
    _limit(resource.RLIMIT_NPROC, number)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, and let nobody read its memory (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def private_memory() -> Iterator[None]:
    """Meanwhile, let no other process of the user read this one's memory or use its descriptors (Linux)."""
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


def drop_privileges() -> None:
    """Give up all capabilities, and the means to gain any (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.capset(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), bytes(24)))


def restrict_files(readable: Sequence[str]) -> None:
    """Let this process open nothing but what lies below `readable`, and that for reading only (Landlock).

    Raises:
        OSError: this kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = _check(libc.syscall(_LANDLOCK_CREATE, None, 0, 1))
    rights = (1 << _LANDLOCK_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("<Q", rights)
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0))
    for path in readable:
        if not os.path.exists(path):
            continue
        allowed = _LANDLOCK_EXECUTE | _LANDLOCK_READ_FILE | (_LANDLOCK_READ_DIR if os.path.isdir(path) else 0)
        descriptor = os.open(path, _O_PATH | os.O_CLOEXEC)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("<Qi", allowed, descriptor), 0))
        os.close(descriptor)
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def restrict_system_calls(writable: bool) -> None:
    """Refuse processes, signals, the network, other processes' memory and, unless `writable`, changes of any file.

    Threads are still possible. `drop_privileges` comes first.

    Raises:
        OSError: this kernel or machine cannot do it.
    """
    if os.uname().machine not in _MACHINES:
        raise OSError(_ENOSYS, f"no filter for {os.uname().machine}")
    code = b"".join(_filter(*_MACHINES[os.uname().machine], writable))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0))


def _filter(architecture: int, column: int, writable: bool) -> Iterator[bytes]:
    """Yield the instructions of a BPF program over `struct seccomp_data`."""
    load, equal, above, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow = _instruction(answer, 0x7FFF0000)

    def refuse(error: int) -> bytes:
        return _instruction(answer, 0x00050000 | error)

    yield _instruction(load, 4)  # the architecture: another one numbers its calls otherwise
    yield _instruction(equal, architecture, 1, 0)
    yield _instruction(answer, 0x80000000)  # the process is killed
    yield _instruction(load, 0)  # the number of the call
    yield _instruction(above, _NEWEST + 1, 0, 1)
    yield refuse(_ENOSYS)
    tables: list[tuple[Mapping[str, tuple[int, int | None]], int]]
    tables = [(_PROCESSES, _EPERM), (_OTHER_PROCESSES, _EPERM), (_NETWORK_AND_IPC, _EACCES), (_KERNEL, _EPERM)]
    tables.append((_UNKNOWN, _ENOSYS))
    if not writable:
        tables += [(_WRITING, _EACCES), ({"openat2": _OPENAT2}, _ENOSYS)]
    for table, error in tables:
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                yield _instruction(equal, number, 0, 1)
                yield refuse(error)

    def by_argument(number: int, argument: int, test: int, value: int, met: bytes, unmet: bytes) -> Iterator[bytes]:
        yield _instruction(equal, number, 0, 4)
        yield _instruction(load, 16 + 8 * argument)
        yield _instruction(test, value, 0, 1)
        yield met
        yield unmet

    def by_values(number: int, argument: int, refused: Sequence[int]) -> Iterator[bytes]:
        yield _instruction(equal, number, 0, 2 + 2 * len(refused))
        yield _instruction(load, 16 + 8 * argument)
        for value in refused:
            yield _instruction(equal, value, 0, 1)
            yield refuse(_EPERM)
        yield allow

    yield from by_argument(_CLONE[column], 0, any_bit, _CLONE_THREAD, allow, refuse(_EPERM))
    yield from by_argument(_PRLIMIT[column], 0, equal, 0, allow, refuse(_EPERM))
    yield from by_argument(_SOCKETPAIR[column], 1, any_bit, _NOT_STREAM, refuse(_EACCES), allow)
    yield from by_values(_FCNTL[column], 1, (_F_SETOWN, _F_SETOWN_EX))
    yield from by_values(_IOCTL[column], 1, (_FIOSETOWN, _SIOCSPGRP))
    if not writable:
        for numbers, argument in _OPEN.values():
            if (number := numbers[column]) is not None:
                yield from by_argument(number, argument, any_bit, _WRITE_FLAGS, refuse(_EACCES), allow)
    yield allow


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
