"""Ends a worker process when the process that started it has ended, even if that was killed.

This module imports nothing heavy: a worker whose parent is killed while the worker starts ends before it has imported
torch.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent() -> None:
    """Let this process of `multiprocessing` end with its parent.

    A thread waits for the pipe that the parent keeps open; that works on every platform. On Linux the kernel kills the
    process as well, which needs no Python code to run in time.
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
