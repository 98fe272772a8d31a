"""Show the progress of long jobs: a bar on a terminal or in a notebook, elsewhere a line every 30 seconds.

Lines go to stderr, and to the `janusflow` logger for applications that collect records.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from janusflow.extras import require

INTERVAL = 30.0  # seconds between two lines
logger = logging.getLogger("janusflow")


def say(text: str, level: int = logging.INFO) -> None:
    """Print a line on stderr and log it to the `janusflow` logger.

    `logging.getLogger("janusflow").setLevel(logging.WARNING)` silences lines of a lower level. A line that a handler of
    the application writes to the console is not printed again.
    """
    logger.log(level, text)
    if level >= logger.level and not _on_console(level):
        print(text, file=sys.stderr)


def _on_console(level: int) -> bool:
    """Return whether a handler of the application writes records of this level to the console."""
    console = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    place: logging.Logger | None = logger if logger.isEnabledFor(level) else None
    while place is not None:
        for handler in place.handlers:
            if getattr(handler, "stream", None) in console and level >= handler.level:
                return True
        place = place.parent if place.propagate else None
    return False


@contextmanager
def without_others(*, reads_data: bool = False) -> Iterator[None]:
    """Hide the bars of transformers and `datasets`, which they show even without a terminal.

    Args:
        reads_data: whether the body uses `datasets`, which is an extra; if not, it is not imported here.

    Raises:
        ValueError: if `datasets` is used and not installed.
    """
    from transformers.utils import logging

    if reads_data:
        require("reading a data set", "datasets")
    datasets = sys.modules.get("datasets")
    ours = logging.is_progress_bar_enabled()
    theirs = datasets is not None and not datasets.are_progress_bars_disabled()
    logging.disable_progress_bar()
    if datasets is not None:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if ours:
            logging.enable_progress_bar()
        if datasets is not None and theirs:
            datasets.enable_progress_bars()


class ProgressBar:
    """Context manager that shows the progress of a job.

    It is a bar on a terminal (rich) or in a notebook (tqdm). Elsewhere it prints a line every 30 seconds, and one at
    the end if there were any before, so that logs stay short.

    Args:
        title: text before the numbers.
        total: number of items; None if it is unknown.
        done: number of items that are already done.
        shown: whether to show anything.
        keep: whether the bar stays on the screen, and the last line is always printed.
        clock: function that returns monotonic seconds.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        done: int = 0,
        shown: bool = True,
        keep: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.done, self.shown, self.keep = title, total, done, shown, keep
        self._clock, self._first = clock, done
        self._stack = ExitStack()
        self._show: Callable[[int, str], None] | None = None

    def __enter__(self) -> ProgressBar:
        self._started = self._last = self._clock()
        console = Console(stderr=True)
        if self.shown and console.is_jupyter:
            self._show = self._in_notebook()
        elif self.shown and console.is_terminal:
            self._show = self._on_terminal(console)
        elif self.shown:
            self._show = self._as_lines
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def advance(self) -> None:
        """Count one more item."""
        self.update(self.done + 1)

    def update(self, done: int, note: str = "") -> None:
        """Set the number of items that are done.

        Args:
            done: number of items, including those that were done at the start.
            note: further text, such as losses.
        """
        self.done = done
        if self._show is not None:
            self._show(done, note)

    def _on_terminal(self, console: Console) -> Callable[[int, str], None]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        bar = self._stack.enter_context(
            Progress(*columns, TimeRemainingColumn(), console=console, transient=not self.keep)
        )
        task = bar.add_task(self.title, total=self.total, completed=self.done)
        return lambda done, note: bar.update(task, completed=done, description=note or self.title)

    def _in_notebook(self) -> Callable[[int, str], None]:
        from tqdm.auto import tqdm

        bar = self._stack.enter_context(tqdm(total=self.total, initial=self.done, desc=self.title, leave=self.keep))

        def show(done: int, note: str) -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)

        return show

    def _as_lines(self, done: int, note: str) -> None:
        now, ended = self._clock(), done == self.total
        if now - self._last < INTERVAL and not (ended and (self.keep or self._last > self._started)):
            return
        self._last = now
        line = f"{self.title} {done:,}" + ("" if self.total is None else f" of {self.total:,}")
        line += f": {note}" if note else ""
        if self.total is not None and self._first < done < self.total:
            left = (now - self._started) / (done - self._first) * (self.total - done)
            line += f", {timedelta(seconds=round(left))} left"
        say(line)


@contextmanager
def progress_bar(
    title: str,
    total: int | None,
    *,
    done: int = 0,
    shown: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[], None]]:
    """Show a `ProgressBar`, which has the same arguments, and yield a function that advances it by one."""
    with ProgressBar(title, total, done=done, shown=shown, clock=clock) as bar:
        yield bar.advance
