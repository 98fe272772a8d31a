"""Handle SIGTERM, which schedulers send before they end a job, and Ctrl-C: a run saves and ends, or ends at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handle = Callable[[int, FrameType | None], object]


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and the first SIGINT while the body runs; the next one interrupts."""
    caught: list[int] = []
    with on_stop(lambda number, _: caught.append(number)):
        yield caught


@contextmanager
def on_stop(handle: Handle) -> Iterator[None]:
    """Call `handle` at SIGTERM and at the first SIGINT while the body runs; the next one interrupts."""

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        handle(number, frame)

    try:
        before = [(number, signal.signal(number, first)) for number in (signal.SIGTERM, signal.SIGINT)]
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def leave(number: int) -> None:
    """End the process after a signal: with status 0 for SIGTERM, as interrupted for SIGINT.

    Raises:
        SystemExit, KeyboardInterrupt: always one of them.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(0)


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """End the process while every file is complete or absent, so that the same command continues the run."""
    print("stopped: nothing is lost, and the same command continues the run", file=sys.stderr)
    leave(number)
