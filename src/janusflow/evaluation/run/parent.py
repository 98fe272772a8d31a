"""End a worker process when its parent process has ended, even if the parent was killed.

This module imports nothing heavy: a worker whose parent is killed while the worker starts ends before it imports torch.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # from Linux's prctl


def end_with_parent() -> None:
    """Make this `multiprocessing` process end with its parent.

    A thread waits on the pipe that the parent keeps open, which works on every platform. On Linux, the kernel kills
    the process as well, which does not depend on Python code running in time.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
