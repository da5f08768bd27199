"""`Isolation`: the mechanisms that separate a program from the machine, and the command line that applies them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from evals.sandbox.program import Limits

_HERE = Path(__file__).resolve().parent
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FEW = 64  # limit without seccomp, where the program can start processes too
_ADMINISTRATION = (2, 6, 7, 21)  # CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
_TO_LEAVE_ROOT = ("CAP_SETUID", "CAP_SETGID", "CAP_DAC_READ_SEARCH")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""Environment of a judge, for the same order of sets every time; hidden from the program."""
# Imports the modules of this package under their names, without the packages around them.
_BOOT = (
    "import sys,types\n"
    "for name, path in (('evals', []), ('evals.sandbox', [{folder!r}])):\n"
    "    module = sys.modules[name] = types.ModuleType(name)\n"
    "    module.__path__ = path\n"
    "import evals.sandbox.{main} as main\n"
    "main.main()\n"
)


@cache
def _may_leave_root() -> bool:
    """Return whether this process is root, and may mount folders and become another user (Linux)."""
    if os.geteuid() != 0 or not os.path.exists("/proc/self/status"):
        return False
    with open("/proc/self/status") as stream:
        (capabilities,) = (int(line.split()[1], 16) for line in stream if line.startswith("CapEff:"))
    return all(capabilities >> number & 1 for number in _ADMINISTRATION)


@dataclass(frozen=True)
class Isolation:
    """The mechanisms that separate a program from the machine, besides resource limits and its own process.

    Attributes:
        bubblewrap: path of `bwrap`: no network, a read-only system, a small private folder for temporary files, other
            processes hidden.
        seccomp: only the system calls that programs need: no new processes, signals, sockets, tracing.
        landlock: only Python and the system's libraries can be read, only a private folder written; used only without
            bubblewrap.
        own_user: whether root starts bubblewrap and the judge becomes another user, to whom the kernel's limits apply;
            otherwise bubblewrap makes a user namespace.
    """

    bubblewrap: str | None = None
    seccomp: bool = False
    landlock: bool = False
    own_user: bool = field(default_factory=_may_leave_root)

    @property
    def name(self) -> str:
        """Return the active mechanisms, the strongest first."""
        parts = [
            "bubblewrap" if self.bubblewrap else "",
            "seccomp" if self.seccomp else "",
            "landlock" if self.landlock else "",
            "resource limits",
        ]
        return " + ".join(part for part in parts if part)

    def command(self, limits: Limits, folder: str | None, main: str = "judge") -> list[str]:
        """Return the command line that starts a judge, or another module of this package.

        Args:
            folder: where programs may write; the caller makes and removes it. None with bubblewrap, which has its own.
        """
        readable = _readable_paths()
        settings: dict[str, Any] = {
            "limits": {
                "memory": limits.memory,
                "cpu_seconds": int(limits.timeout * 4 / 3) + 2,
                "file_size": limits.file_size,
            },
            "processes": limits.processes if self.seccomp else min(limits.processes, _FEW),
            "timeout": limits.timeout,
            "seccomp": self.seccomp,
            "landlock": self.landlock,
            "writing": "mount" if self.bubblewrap else "folder" if self.landlock else "nothing",
            "readable": [*readable, *_DEVICES],
            "folder": folder,
            "scratch": _scratch(limits, readable) if self.bubblewrap else None,
            "site": _site_packages(),
        }
        boot = _BOOT.format(folder=str(_HERE), main=main)
        # As `-I`, which would also ignore PYTHONHASHSEED.
        python = [os.path.realpath(sys.executable), *"-s -P -S -B -X utf8 -c".split(), boot, json.dumps(settings)]
        return [*self._wrapper(readable), *python]

    def _wrapper(self, readable: list[str]) -> list[str]:
        if not self.bubblewrap:
            return []
        command = [self.bubblewrap, *"--unshare-pid --unshare-net --unshare-ipc --unshare-uts".split()]
        command += "--unshare-cgroup-try --hostname sandbox --clearenv --die-with-parent --as-pid-1".split()
        for name, value in ENVIRONMENT.items():
            command += ["--setenv", name, value]
        # The judge needs these to mount a folder and leave root; it drops them before program or tests run.
        capabilities = ["CAP_SYS_ADMIN", *(_TO_LEAVE_ROOT if self.own_user else ())]
        if not self.own_user:
            command += "--unshare-user --uid 65534 --gid 65534".split()
        command += ["--cap-drop", "ALL", *(word for each in capabilities for word in ("--cap-add", each))]
        command += "--proc /proc --tmpfs /dev --dir /tmp".split()
        for device in _DEVICES:
            command += ["--dev-bind", device, device]
        for path in readable:
            if os.path.islink(path):
                command += ["--symlink", os.readlink(path), path]
            else:
                command += ["--ro-bind", path, path]
        for mount in ("/proc", "/dev", "/"):
            command += ["--remount-ro", mount]
        return [*command, "--chdir", "/tmp", "--"]


def _scratch(limits: Limits, readable: list[str]) -> dict[str, Any]:
    """Return the settings of the file system mounted on `/tmp`; Python's packages below it stay visible."""
    kept = [path for path in readable if Path(path).is_relative_to("/tmp")]
    return {"folder": "/tmp", "size": limits.file_size, "entries": limits.entries, "kept": kept}


@cache
def _site_packages() -> list[str]:
    """Return the folders of third-party packages on the path, without the user's own code."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


@cache
def _readable_paths() -> list[str]:
    """Return the paths that a Python program needs to read, each once."""
    wanted = [path for path in _SYSTEM if os.path.lexists(path)]
    for path in [sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), *_site_packages(), str(_HERE)]:
        real = os.path.realpath(path)
        if os.path.isdir(real) and not any(Path(real).is_relative_to(other) for other in wanted):
            wanted.append(real)
        if real != path and path not in wanted:
            wanted.append(path)
    return wanted
