"""Scores against an option of sampling: the curves of the paper's appendix B."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

EVALUATIONS = {"heun": 2, "midpoint": 2}  # of the network in a step; 1 of the others


def network_evaluations(options: Mapping[str, Any]) -> int:
    """How many rows of the network one picture costs: steps x solver's stages x 2 with guidance.

    Heun's last step and the first of two-step Adams-Bashforth count like the others.
    """
    steps = int(options.get("num_inference_steps", 30)) * EVALUATIONS.get(str(options.get("solver", "euler")), 1)
    return steps * (1 if options.get("guidance_scale") == 1 else 2)


def draw_curves(
    out: Path,
    reports: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    shown: str,
    lower_is_better: bool = False,
) -> str:
    """Writes sweep.json and sweep.svg into `out`: a panel for each numeric option that varies, one for evaluations.

    A line is one combination of the other options (solvers, say). Where several points of it share a place, because
    other numeric options vary as well, it goes through the best of them.

    Args:
        out: folder of the runs.
        reports: options that were set, and the report with them.
        shown: name of the score.
        lower_is_better: whether its best is its lowest.

    Returns:
        A table in Markdown.
    """
    rows = [
        {**point, "evaluations": network_evaluations(report["options"]), "score": report["scores"].get(shown)}
        | {"interval": report["intervals_95"].get(shown)}
        for point, report in reports
    ]
    (out / "sweep.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    keys = list(reports[0][0])
    panels = curves(rows, keys, min if lower_is_better else max)
    _draw(out / "sweep.svg", panels, shown, title=", ".join(named(rows, keys)))
    head = [*keys, "evaluations", shown]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.4g}"
        lines.append("| " + " | ".join([*(str(row[key]) for key in head[:-1]), score]) + " |")
    return "\n".join([*lines, "", str(out / "sweep.svg")])


def named(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Those of the options whose values are no numbers."""
    return [key for key in keys if not all(type(row[key]) in (int, float) for row in rows)]


def curves(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], best: Callable[[Iterable[float]], float]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The lines of each panel by name, as (place, best score there) from left to right.

    Of network evaluations, where several numbers vary, it is the best score of at most so many.

    Args:
        rows: options, "evaluations" and "score" of each run.
        keys: names of the options.
        best: of the scores that share a place.
    """
    words = named(rows, keys)
    across = [key for key in keys if key not in words and len({row[key] for row in rows}) > 1]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for axis in (*across, "evaluations"):
        lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row["score"] is not None:
                lines[", ".join(str(row[key]) for key in words)][row[axis]].append(row["score"])
        panels[axis] = {
            name: [(place, best(scores)) for place, scores in sorted(points.items())] for name, points in lines.items()
        }
        if axis == "evaluations" and len(across) > 1:
            panels[axis] = {
                name: list(itertools.accumulate(line, lambda before, now: (now[0], best((before[1], now[1])))))
                for name, line in panels[axis].items()
            }
    return panels


def _draw(file: Path, panels: Mapping[str, Mapping[str, list[tuple[float, float]]]], shown: str, *, title: str) -> None:
    import matplotlib.figure

    several = len(panels) > 2
    evaluations = "at most so many network evaluations" if several else "network evaluations"
    figure = matplotlib.figure.Figure(figsize=(1.5 + 3.6 * len(panels), 3.8), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (axis, lines) in zip(grid, panels.items(), strict=True):
        for (name, points), mark in zip(lines.items(), itertools.cycle("os^Dv*")):
            axes.plot(*zip(*points, strict=True), f"{mark}-", label=name or None, markersize=4)
        axes.set_xlabel(axis.replace("_", " ") if axis != "evaluations" else evaluations)
        axes.grid(alpha=0.3)
    best = " (best over the other options)" if several else ""
    grid[0].set_ylabel(shown.replace("$", r"\$") + best)
    if title and len(panels["evaluations"]):
        handles, labels = grid[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title=title, fontsize=9)
    figure.savefig(file, metadata={"Date": None})
