"""Progress bars on the terminal: shown on a terminal only, gone when done, never in the way of piped output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def without_others() -> Iterator[None]:
    """No bars of transformers and `datasets`, which they also draw where there is no terminal."""
    import datasets
    from transformers.utils import logging

    ours, theirs = logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if ours:
            logging.enable_progress_bar()
        if not theirs:
            datasets.enable_progress_bars()


@contextmanager
def progress_bar(title: str, total: int | None, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """A bar on stderr; the function that it gives advances it by one.

    Args:
        title: stands before the bar.
        total: how many advances fill it; None if nobody knows.
        shown: False draws nothing.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    disabled = not shown or not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=disabled) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
