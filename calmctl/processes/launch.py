"""Launching: run a command in several processes with PyTorch Elastic, and report their failure in one line."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from calmctl.errors import CalmctlError, UserError
from calmctl.escaping import visible
from calmctl.processes.parent import ASKING, LAUNCHER_VARIABLE, PARENT_VARIABLE, Interrupted
from data_builders.workers import usable_cores

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

USER_ERROR = 2
INTERRUPTED = 130


def launch(arguments: Sequence[str], count: int, nnodes: int = 1, rdzv_endpoint: str | None = None) -> None:
    """Run `calmctl` with some arguments in several processes; return when all have succeeded.

    Args:
        count: processes on this machine.
        nnodes: machines; the same command runs on each.
        rdzv_endpoint: host:port of the rendezvous, the same on all machines; not needed for one.

    Raises:
        UserError: the processes cannot be started, or one of them refused its input.
        CalmctlError: one of them failed.
        Interrupted: this process or one of them was told to end; all have ended.
    """
    check_meeting(nnodes, rdzv_endpoint)
    level = os.environ.get("TORCH_CPP_LOG_LEVEL")
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # only during the imports
    from torch.distributed.elastic.multiprocessing import api as multiprocessing_api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    os.environ.pop("TORCH_CPP_LOG_LEVEL")
    if level is not None:
        os.environ["TORCH_CPP_LOG_LEVEL"] = level
    # Failures are reported by us in one line, not by Elastic.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    os.environ |= {LAUNCHER_VARIABLE: str(os.getpid()), PARENT_VARIABLE: str(os.getpid())}
    # Without an endpoint, use a free port of this machine.
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={rdzv_endpoint or 'localhost:0'}", "--rdzv-id=calmctl"]
    flags = [f"--nnodes={nnodes}", f"--nproc-per-node={count}", *meeting]
    with tempfile.TemporaryDirectory(prefix="calmctl-") as logs:
        # -P: a folder in the working directory must not hide a package of the same name.
        program = ["--no-python", sys.executable, "-P", "-m", "calmctl", *arguments]
        config, entrypoint, rest = config_from_args(parse_args([*flags, f"--log-dir={logs}", *program]))
        signals = _PassedOn()
        for number in ASKING:
            signal.signal(number, signals.handle)
        # Elastic's own handler kills the processes after 30 seconds, too soon for a large checkpoint.
        setattr(multiprocessing_api, "_terminate_process_handler", signals.handle)  # noqa: B010 (it is private)
        try:
            elastic_launch(config, entrypoint)(*rest)
        except ChildFailedError as error:
            raise _first_cause(error.failures, signals.count > 0) from None
        except RendezvousError as error:
            reason = str(error).strip().splitlines()[0]
            where = rdzv_endpoint or "on this machine"
            raise UserError(f"--rdzv-endpoint: the processes cannot meet {where} ({reason})") from error


class _PassedOn:
    """Handles signals that ask this process to end: ends its child processes at the first, kills them at the second.

    Attributes:
        count: number of signals so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to the child processes; without any, raise KeyboardInterrupt."""
        self.count += 1
        if not (processes := psutil.Process().children()):
            raise KeyboardInterrupt
        for process in processes:
            process.send_signal(signal.SIGTERM if self.count == 1 else signal.SIGKILL)


def check_meeting(nnodes: int, rdzv_endpoint: str | None) -> None:
    """Raise UserError if the rendezvous endpoint is missing (for several machines), malformed or in use."""
    if nnodes > 1 and not rdzv_endpoint:
        raise UserError("--rdzv-endpoint is not set; give host:port of one of the machines, the same on all of them")
    if rdzv_endpoint:
        _check_endpoint(rdzv_endpoint, nnodes)


def _check_endpoint(endpoint: str, nnodes: int) -> None:
    """Raise UserError for a malformed endpoint or, with one machine, a port in use (of several, another may own it)."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--rdzv-endpoint {endpoint}: give it as host:port")
    if nnodes > 1:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--rdzv-endpoint {endpoint}: that port cannot be used here ({error}); choose another, or leave it out"
            ) from error


def parse_num_processes(wanted: str) -> int:
    """Return the number of processes for `--nproc-per-node`: a number, `gpu` (one each) or `auto` (GPUs, else cores).

    Raises:
        UserError: the value is malformed, or `gpu` without a GPU.
    """
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    if wanted not in ("gpu", "auto"):
        raise UserError(f"--nproc-per-node {wanted}: give a number from 1, `gpu` or `auto`")
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "gpu" and not gpus:
        raise UserError("--nproc-per-node gpu: there is no GPU here that PyTorch can use; see `calmctl doctor`")
    return gpus or usable_cores()


def _first_cause(failures: "dict[int, ProcessFailure]", is_asked: bool = False) -> CalmctlError | Interrupted:
    """Return the root cause of several failures, as an error of this process.

    If the processes were told to end, that is the cause; one of them may report what was saved.

    When one process fails, the others lose their connection to it. So refused input takes precedence, then a process
    killed by the system, then the earliest failure. Processes that ended without a report, or by Elastic's SIGTERM,
    only followed another one.
    """

    def order(rank: int) -> tuple[bool, bool, bool, float, int]:
        code, reported = failures[rank].exitcode, _reported(failures[rank])
        is_follower = code == -signal.SIGTERM or (code >= 0 and not reported)
        return is_follower, code != USER_ERROR, code >= 0, reported.get("time", 0.0), rank

    rank = min(failures, key=order)
    failure = failures[rank]
    if is_asked or failure.exitcode == INTERRUPTED:
        said = [_reported(each).get("line", "") for each in failures.values() if each.exitcode == INTERRUPTED]
        return Interrupted(max(said, default=""))
    if failure.exitcode < 0:
        hint = " (perhaps out of memory)" if failure.signal_name() == "SIGKILL" else ""
        return CalmctlError(f"process {rank} was killed by {failure.signal_name()}{hint}")
    reported = _reported(failure)
    if trace := reported.get("traceback"):
        print(visible(trace), end="", file=sys.stderr)
    line = reported.get("line") or f"process {rank} ended with exit code {failure.exitcode}"
    return UserError(line) if failure.exitcode == USER_ERROR else CalmctlError(line)


def _reported(failure: "ProcessFailure") -> dict[str, Any]:
    """Return what a process wrote into its error file (see `parent.report_to_launcher`)."""
    return failure.error_file_data.get("calmctl", {})
