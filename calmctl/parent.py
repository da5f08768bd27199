"""How a process ends when it is told to, or when the experiment that started it does."""

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "CALMCTL_STAGE_OF"
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


def end_like_ctrl_c() -> None:
    """Treat SIGTERM like Ctrl-C, so that runs say that they were interrupted; end with the experiment, if a stage.

    The second works on Linux. SIGINT is set too: a background job of a shell would inherit it as ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit(130)
