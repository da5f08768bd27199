"""How strongly programs can be isolated on this machine: found by trying, once a process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evals.sandbox.program import Limits

_HERE = Path(__file__).resolve().parent
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# The modules of this package are imported under their names, and the packages around them are not.
_BOOT = (
    "import sys,types\n"
    "for name, path in (('evals', []), ('evals.sandbox', [{folder!r}])):\n"
    "    module = sys.modules[name] = types.ModuleType(name)\n"
    "    module.__path__ = path\n"
    "import evals.sandbox.judge as judge\n"
    "judge.main()\n"
)


@dataclass(frozen=True)
class Isolation:
    """What stands between a program and the machine, besides resource limits and a process of its own.

    Attributes:
        bubblewrap: the path of `bwrap`: no network, a read-only system, a private folder for temporary files, no
            sight of other processes.
        seccomp: no new processes, signals, sockets; without bubblewrap, no change of any file either.
        landlock: nothing can be read but Python and the system's libraries; only without bubblewrap.
    """

    bubblewrap: str | None = None
    seccomp: bool = False
    landlock: bool = False

    @property
    def name(self) -> str:
        """Return what is active, the strongest first."""
        parts = [
            "bubblewrap" if self.bubblewrap else "",
            "seccomp" if self.seccomp else "",
            "landlock" if self.landlock else "",
            "resource limits",
        ]
        return " + ".join(part for part in parts if part)

    def command(self, limits: Limits) -> list[str]:
        """Return the command line that starts a judge."""
        readable = _readable_paths()
        settings: dict[str, Any] = {
            "limits": {
                "memory": limits.memory,
                "cpu_seconds": int(limits.timeout * 4 / 3) + 2,
                "file_size": limits.file_size,
            },
            "processes": limits.processes if self.seccomp else 0,
            "timeout": limits.timeout,
            "seccomp": self.seccomp,
            "landlock": self.landlock,
            "writable": bool(self.bubblewrap),
            "readable": [*readable, *_DEVICES],
            "site": _site_packages(),
        }
        boot = _BOOT.format(folder=str(_HERE))
        python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-X", "utf8", "-c", boot, json.dumps(settings)]
        return [*self._wrapper(readable, limits), *python]

    def _wrapper(self, readable: list[str], limits: Limits) -> list[str]:
        if not self.bubblewrap:
            return []
        namespaces = "--unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try"
        nobody = "--uid 65534 --gid 65534 --hostname sandbox --cap-drop ALL --clearenv"
        folders = f"--proc /proc --dev /dev --size {limits.file_size} --tmpfs /tmp"
        command = [self.bubblewrap, *f"{namespaces} {nobody} --die-with-parent --as-pid-1 {folders}".split()]
        for path in readable:
            if os.path.islink(path):
                command += ["--symlink", os.readlink(path), path]
            else:
                command += ["--ro-bind", path, path]
        return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]


@cache
def detect() -> Isolation:
    """Return the strongest isolation that works here."""
    return find_isolation()[0]


def find_isolation() -> tuple[Isolation, str]:
    """Return the strongest isolation that works here, and why no stronger one does ("" where there is none)."""
    weaker = Isolation(seccomp=not _trouble(Isolation(seccomp=True)))
    if not _trouble(Isolation(seccomp=weaker.seccomp, landlock=True)):
        weaker = Isolation(seccomp=weaker.seccomp, landlock=True)
    if sys.platform != "linux":
        return weaker, "bubblewrap is for Linux only; use a Linux container"
    path = shutil.which("bwrap")
    if path is None:
        return weaker, "bubblewrap is not installed; apt-get install bubblewrap"
    strong = Isolation(bubblewrap=path, seccomp=weaker.seccomp)
    if trouble := _trouble(strong):
        return weaker, f"bubblewrap does not work here ({trouble}); allow unprivileged user namespaces"
    return strong, "" if strong.seccomp else "this kernel has no seccomp filters"


def _trouble(isolation: Isolation) -> str:
    """Return what is wrong with an isolation, by a program that tries what has to fail; "" where nothing is."""
    from evals.sandbox.program import Program
    from evals.sandbox.supervisor import run_alone

    with tempfile.NamedTemporaryFile() as outside:
        attempts = [f"open({outside.name!r})"] if isolation.bubblewrap or isolation.landlock else []
        if isolation.bubblewrap or isolation.seccomp:
            attempts.append(f"open({outside.name + '.new'!r}, 'w')" if not isolation.bubblewrap else "open('/x', 'w')")
            attempts.append("__import__('socket').create_connection(('127.0.0.1', 9), 1)")
        tries = "".join(f"try:\n    {attempt}\nexcept OSError:\n    failed += 1\n" for attempt in attempts)
        program = Program(
            f"failed = 0\n{tries}", f"assert failed == {len(attempts)}, 'it does not isolate'", names=("failed",)
        )
        verdict = run_alone(program, Limits(timeout=10.0), isolation)
    return "" if verdict.passed else verdict.detail or verdict.status


@cache
def _site_packages() -> list[str]:
    """Return where third-party packages are; the user's own code, which may be on the path too, is left out."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


@cache
def _readable_paths() -> list[str]:
    """Return what a Python program needs to see, each path once and none below another."""
    wanted = [path for path in _SYSTEM if os.path.lexists(path)]
    for path in [sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), *_site_packages(), str(_HERE)]:
        real = os.path.realpath(path)
        if os.path.isdir(real) and not any(Path(real).is_relative_to(other) for other in wanted):
            wanted.append(real)
        if real != path and path not in wanted:
            wanted.append(path)
    return wanted
