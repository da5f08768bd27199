"""A seccomp filter that allows only the system calls that Python programs need.

All others are refused (tracing, mounts, file watches, keys, sockets, namespaces, ...), so they need not be listed.
Linux on x86-64 and AArch64.
"""

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Writing = Literal["nothing", "folder", "mount"]
"""What may be written: nothing; files in a folder that Landlock guards; files on mounts of the process's own."""

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
# Architecture -> (its number in audit.h, column of the tables below).
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NEWEST = 462  # later calls, and x32 above them, are unknown here and answered by ENOSYS

# System calls by number on x86-64 and AArch64 (None: it has none).
_Numbers = dict[str, tuple[int | None, int | None]]
_ALWAYS: _Numbers = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287), "close": (3, 57),
    "close_range": (436, 436), "lseek": (8, 62), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59), "sendfile": (40, 71), "copy_file_range": (326, 285), "splice": (275, 76),
    "tee": (276, 77), "fsync": (74, 82), "fdatasync": (75, 83), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None),
    "getdents64": (217, 61), "statfs": (137, 43), "fstatfs": (138, 44), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "umask": (95, 166), "fadvise64": (221, 223), "mmap": (9, 222), "munmap": (11, 215),
    "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "msync": (26, 227),
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "rseq": (334, 293), "membarrier": (324, 283), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "getpriority": (140, 141),
    "getcpu": (309, 168), "get_mempolicy": (239, 236), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "pause": (34, None), "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "timer_create": (222, 107), "timer_settime": (223, 110), "timer_gettime": (224, 108),
    "timer_getoverrun": (225, 109), "timer_delete": (226, 111), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
    "eventfd": (284, None), "eventfd2": (290, 19), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "recvfrom": (45, 207),
    "sendto": (44, 206), "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210), "getsockopt": (55, 209),
    "getsockname": (51, 204), "getpeername": (52, 205), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "getpgid": (121, 155),
    "getpgrp": (111, None), "getsid": (124, 156), "capget": (125, 90), "uname": (63, 160), "sysinfo": (99, 179),
    "getrusage": (98, 165), "getrlimit": (97, 163), "setrlimit": (160, 164), "getrandom": (318, 278),
    "arch_prctl": (158, None), "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
}  # fmt: skip
_IN_A_FOLDER: _Numbers = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "symlink": (88, None),
    "symlinkat": (266, 36), "ftruncate": (77, 46), "fallocate": (285, 47), "flock": (73, 32),
}  # fmt: skip
_ON_OWN_MOUNTS: _Numbers = {
    "link": (86, None), "linkat": (265, 37), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "truncate": (76, 45), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None),
}  # fmt: skip
_UNKNOWN: _Numbers = {"clone3": (435, 435), "openat2": (437, 437), "io_uring_setup": (425, 425)}  # libc falls back.


@dataclass(frozen=True)
class _Condition:
    """A condition on the lower 32 bits of one argument of a call."""

    argument: int
    test: Literal["one of", "no bit of", "a bit of"]
    values: tuple[int, ...]


_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x10000
_AF_UNIX, _NOT_STREAM = 1, 0xE  # a datagram socket can send to any other of the machine
_PR_SET_NAME, _PR_GET_NAME = 15, 16
# Duplicates, flags, pipe sizes; locks. Left out: receivers of signals, leases, seals, watches.
_DESCRIPTOR_COMMANDS, _LOCKS = (0, 1, 2, 3, 4, 1030, 1032), (5, 6, 7)
# TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_TERMINAL_AND_QUEUE = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


def restrict_system_calls(writing: Writing) -> None:
    """Restrict this process for good to the calls that programs need, which include starting threads.

    Call `drop_privileges` first.

    Raises:
        OSError: the kernel or the architecture does not support it.
    """
    if os.uname().machine not in _MACHINES:
        raise OSError(_ENOSYS, f"no filter for {os.uname().machine}")
    code = b"".join(_filter(*_MACHINES[os.uname().machine], writing))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _conditional(writing: Writing) -> Iterator[tuple[tuple[int | None, int | None], list[_Condition]]]:
    """Yield the numbers of calls that are allowed with certain arguments only, and the conditions on these."""
    yield (56, 220), [_Condition(0, "a bit of", (_CLONE_THREAD,))]  # clone, for threads only
    yield (302, 261), [_Condition(0, "one of", (0,))]  # prlimit64, of this process only
    yield (53, 199), [_Condition(0, "one of", (_AF_UNIX,)), _Condition(1, "no bit of", (_NOT_STREAM,))]  # socketpair
    yield (157, 167), [_Condition(0, "one of", (_PR_SET_NAME, _PR_GET_NAME))]
    commands = _DESCRIPTOR_COMMANDS if writing == "nothing" else _DESCRIPTOR_COMMANDS + _LOCKS
    yield (72, 25), [_Condition(1, "one of", commands)]  # fcntl
    yield (16, 29), [_Condition(1, "one of", _TERMINAL_AND_QUEUE)]  # ioctl
    flags = [_Condition(1, "no bit of", (_WRITE_FLAGS,))] if writing == "nothing" else []
    yield (2, None), flags  # open
    yield (257, 56), [_Condition(each.argument + 1, each.test, each.values) for each in flags]  # openat


_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06


def _filter(architecture: int, column: int, writing: Writing) -> Iterator[bytes]:
    """Yield the instructions of a BPF program over `struct seccomp_data`."""
    yield _instruction(_LOAD, 4)  # the architecture: another one has other call numbers
    yield _instruction(_EQUAL, architecture, 1, 0)
    yield _instruction(_ANSWER, 0x80000000)  # the process is killed
    yield _instruction(_LOAD, 0)  # the number of the call
    yield _instruction(_ABOVE, _NEWEST + 1, 0, 1)
    yield _refuse(_ENOSYS)
    for numbers in _UNKNOWN.values():
        yield from _if_number(numbers[column], [_refuse(_ENOSYS)])
    for numbers, conditions in _conditional(writing):
        error = _EACCES if numbers in ((2, None), (257, 56)) else _EPERM
        yield from _if_number(numbers[column], [*_checks(conditions, error), _allow()])
    tables = {"nothing": [_ALWAYS], "folder": [_ALWAYS, _IN_A_FOLDER], "mount": [_ALWAYS, _IN_A_FOLDER, _ON_OWN_MOUNTS]}
    for table in tables[writing]:
        for numbers in table.values():
            yield from _if_number(numbers[column], [_allow()])
    yield _refuse(_EPERM)


def _if_number(number: int | None, instructions: Sequence[bytes]) -> Iterator[bytes]:
    if number is not None:
        yield _instruction(_EQUAL, number, 0, len(instructions))
        yield from instructions


def _checks(conditions: Sequence[_Condition], error: int) -> Iterator[bytes]:
    """Yield the instructions that refuse a call unless its arguments meet the conditions."""
    for condition in conditions:
        yield _instruction(_LOAD, 16 + 8 * condition.argument)
        if condition.test == "one of":
            for remaining, value in zip(range(len(condition.values), 0, -1), condition.values, strict=True):
                yield _instruction(_EQUAL, value, remaining, 0)
        elif condition.test == "a bit of":
            yield _instruction(_ANY_BIT, condition.values[0], 1, 0)
        else:
            yield _instruction(_ANY_BIT, condition.values[0], 0, 1)
        yield _refuse(error)


def _allow() -> bytes:
    return _instruction(_ANSWER, 0x7FFF0000)


def _refuse(error: int) -> bytes:
    return _instruction(_ANSWER, 0x00050000 | error)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
