"""Sweeps: a run for each value of a model, an option or a setting, and scores against sampling options.

Such curves are in the paper's appendix B.
"""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janusflow.engine.generation import Sampling
from janusflow.evaluation.protocol import Benchmark
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.reports.markup import plain_label
from janusflow.evaluation.reports.report import markdown_row, number
from janusflow.evaluation.request import SHORT, EvalRequest, check_options
from janusflow.files import write_text
from janusflow.flow import guide, integrate

PATH = r"[^\w.,=+-]+"  # characters of a value that a folder's name leaves out: the slashes of a model's path
FIELDS = ("model", "vae", "dtype")  # fields of a request that a sweep may vary, like options and settings


def points(request: EvalRequest, values: Mapping[str, Sequence[Any]]) -> list[tuple[dict[str, Any], EvalRequest]]:
    """Return one request for each combination of values, each in its own folder under the request's.

    Args:
        request: what all have in common.
        values: values by key: "model", "vae" or "dtype", an option of generating or answering (or its short name on the
            command line), or a setting of the benchmark.

    Returns:
        The values and the request of each point. Models vary slowest, so that each is opened once.

    Raises:
        ValueError: for an unknown key, a value that is given twice, or values whose folders would have the same name.
    """
    kind = find_benchmark(request.benchmark)
    ordered = {key: values[key] for key in sorted(values, key=lambda key: key not in FIELDS)}
    found: dict[str, tuple[dict[str, Any], EvalRequest]] = {}
    for chosen in itertools.product(*ordered.values()):
        point = dict(zip(ordered, chosen, strict=True))
        name = ",".join(f"{key}={re.sub(PATH, '_', str(value))}" for key, value in point.items())
        if name in found:
            raise ValueError(f"the sweep has two runs for the folder {request.out / name}; give each value once")
        one = replace(request, out=request.out / name)
        for key, value in point.items():
            one = _varied(one, kind, key, value)
        found[name] = point, one
    return list(found.values())


def _varied(request: EvalRequest, kind: type[Benchmark], key: str, value: Any) -> EvalRequest:
    """Return a request with another value of a field, an option or a setting."""
    if key in FIELDS:
        changed: dict[str, Any] = {key: str(value)}
        return replace(request, **changed)
    name, settings = SHORT.get(key, key), [field.name for field in fields(kind.Settings)]
    if key in settings:  # also if answering has an option of this name, such as seed
        return replace(request, settings={**request.settings, key: value})
    try:
        check_options(kind, {name: value})
    except ValueError as error:
        more = ", ".join([*FIELDS, *(name for name in settings if name not in FIELDS)])
        raise ValueError(f"a sweep cannot vary {key!r}: {error}; the other keys are {more}") from error
    return replace(request, options={**request.options, name: value})


def network_evaluations(made: Mapping[str, Any]) -> int | None:
    """Return how many rows of the network one picture costs: evaluations of the solver, 2x where guidance acts.

    They are counted by running the solver itself on a field of zeros.

    Args:
        made: arguments for generating; without a solver among them, the result is None.
    """
    names = [field.name for field in fields(Sampling)]
    if "solver" not in made:
        return None
    sampling = Sampling(**{name: made[name] for name in names if made.get(name) is not None})
    rows = []

    def count(x: Tensor, t: Tensor) -> Tensor:
        rows.append(len(x))
        return torch.zeros_like(x)

    low, high = sampling.guidance_interval
    velocity = guide(count, count, scale=sampling.guidance_scale, interval=(low, high))
    integrate(velocity, torch.zeros(1, 1), sampling.times(), method=sampling.solver)
    return sum(rows)


def draw_curves(
    out: Path,
    reports: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    shown: str,
    lower_is_better: bool = False,
) -> str:
    """Write sweep.json and sweep.svg into `out`.

    The figure has a panel for each number that varies, and one for network evaluations if all runs generate with a
    solver. Without a panel there is no figure. A line is one combination of the other options, such as solvers. If
    several of its points share a place, because other numeric options vary as well, it goes through the best of them.

    Args:
        reports: for each run, the options that were set and its report.
        lower_is_better: whether the best score is the lowest.

    Returns:
        A table in Markdown.
    """
    rows = [
        {**point, "evaluations": _evaluations(report), "score": report["scores"].get(shown)}
        | {"interval": report["intervals_95"].get(shown)}
        for point, report in reports
    ]
    write_text(out / "sweep.json", json.dumps(rows, indent=1) + "\n")
    keys = list(reports[0][0])
    scored = any(row["score"] is not None for row in rows)
    panels = curves(rows, keys, min if lower_is_better else max) if scored else {}
    figure = out / "sweep.svg"
    if panels:
        _draw(figure, panels, shown, title=", ".join(named(rows, keys)))
    head = [*keys, *(["evaluations"] if "evaluations" in panels else [])]
    lines = [markdown_row([*head, *([shown] if scored else [])]), "|" + " --- |" * (len(head) + scored)]
    for row in rows:
        lines.append(markdown_row([*(str(row[key]) for key in head), *([number(row["score"])] if scored else [])]))
    if not scored:
        warnings.warn(f"no run has the score {shown!r}, so the sweep has no curve; see their report.md", stacklevel=2)
    return "\n".join([*lines, "", *([str(figure)] if panels else [])])


def _evaluations(report: Mapping[str, Any]) -> int | None:
    """Return the evaluations of a run's pictures; None for only questions or a model without a solver."""
    if not find_benchmark(report["benchmark"]).draws:
        return None
    return network_evaluations({**report.get("used", {}), **report["options"]})


def named(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Return the options whose values are not numbers."""
    return [key for key in keys if not all(type(row[key]) in (int, float) for row in rows)]


def curves(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], best: Callable[[Iterable[float]], float]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the lines of each panel by name, as (place, best score there) from left to right.

    If several numbers vary, a line over network evaluations is the best score with that number or fewer.

    Args:
        rows: options, "evaluations" and "score" of each run.
        best: chooses among the scores that share a place.
    """
    words = named(rows, keys)
    across = [key for key in keys if key not in words and len({row[key] for row in rows}) > 1]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    counted = all(row["evaluations"] is not None for row in rows)
    for axis in (*across, *(["evaluations"] if counted else [])):
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

    several = len(panels) - ("evaluations" in panels) > 1
    evaluations = "network evaluations, at most" if several else "network evaluations"
    figure = matplotlib.figure.Figure(figsize=(1.5 + 3.6 * len(panels), 3.8), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (axis, lines) in zip(grid, panels.items(), strict=True):
        for (name, points), mark in zip(lines.items(), itertools.cycle("os^Dv*")):
            axes.plot(*zip(*points, strict=True), f"{mark}-", label=plain_label(name) or None, markersize=4)
        axes.set_xlabel(plain_label(axis.replace("_", " ")) if axis != "evaluations" else evaluations)
        axes.grid(alpha=0.3)
    best = " (best over the other options)" if several else ""
    grid[0].set_ylabel(plain_label(shown) + best)
    if title:
        handles, labels = grid[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title=plain_label(title), fontsize=9)
    figure.savefig(file, metadata={"Date": None})
