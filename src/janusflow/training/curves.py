"""`out/curves.png`: the losses, learning rate and gradient norm of a run, plotted from its `log.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janusflow.training.log import read_log
from janusflow.training.losses import terms

POINTS = 1000  # per line; longer runs are averaged over equal numbers of steps
ACROSS = 3  # panels in a row


def draw_curves(log: Path, file: Path) -> bool:
    """Draw the curves of a run.

    Args:
        log: a run's `log.jsonl`.
        file: the output picture; its suffix sets the format.

    Returns:
        Whether there was anything to draw.

    Raises:
        ImportError: if matplotlib is not installed.
        OSError: if the picture cannot be written.
    """
    import matplotlib.figure
    import matplotlib.ticker

    rows = read_log(log)
    named = {"loss": ("loss",)} | {term.title: (name, *term.details) for name, term in terms().items()}
    named |= {"learning rate": ("rate",), "gradient norm": ("gradient",)}
    panels = {title: lines for title, names in named.items() if (lines := _lines(rows, names))}
    for lines in panels.values():
        if len(lines) == 2:  # a loss and its only detail, such as that of the only task, are equal
            lines.pop(next(iter(lines)))
    if not panels:
        return False
    down = -(-len(panels) // ACROSS)
    figure = matplotlib.figure.Figure(figsize=(4.2 * ACROSS, 3 * down), layout="constrained")
    grid = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, linewidth=1, label=name, marker="." if len(steps) == 1 else None)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(file, dpi=110)
    return True


def _lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values by name, without names that are always 0 and without values that are not finite."""
    lines = {}
    for name in names:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        size = -(-len(points) // POINTS) or 1
        parts = [points[start : start + size] for start in range(0, len(points), size)]
        if any(value for _, value in points):
            lines[name] = ([part[-1][0] for part in parts], [sum(v for _, v in part) / len(part) for part in parts])
    return lines
