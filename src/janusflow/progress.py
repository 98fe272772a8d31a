"""Progress bars on the terminal: shown on a terminal only, gone when done, never in the way of piped output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
