"""How a process ends when it is told to, or when what started it does, and how it tells its launcher why."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

PARENT_VARIABLE = "CALMCTL_STAGE_OF"
LAUNCHER_VARIABLE = "CALMCTL_LAUNCHED_BY"
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


def end_like_ctrl_c() -> None:
    """Treat SIGTERM like Ctrl-C, so that runs say that they were interrupted; end with what started it, if a part.

    The second works on Linux. SIGINT is set too: a background job of a shell would inherit it as ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit(130)


def is_first_process() -> bool:
    """Return whether this process does the talking: alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def report_to_launcher(line: str, traceback: str = "") -> bool:
    """Leave word why this process fails where `calmctl.training.launch` reads it; False where nobody does.

    Args:
        line: what is wrong, in one line.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path or os.environ.get(LAUNCHER_VARIABLE) != str(os.getppid()):
        return False
    now = time.time()
    said = {"line": line, "traceback": traceback, "time": now}
    Path(path).write_text(json.dumps({"message": line, "timestamp": int(now), "calmctl": said}))
    return True
