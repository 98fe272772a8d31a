"""Scores against an option of sampling: the curves of the paper's appendix B."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVALUATIONS = {"heun": 2, "midpoint": 2}  # of the network in a step; 1 of the others


def network_evaluations(options: Mapping[str, Any]) -> int:
    """How many rows of the network one picture costs: steps x solver's stages x 2 with guidance.

    Heun's last step and the first of two-step Adams-Bashforth count like the others.
    """
    steps = int(options.get("num_inference_steps", 30)) * EVALUATIONS.get(str(options.get("solver", "euler")), 1)
    return steps * (1 if options.get("guidance_scale") == 1 else 2)


def draw_curves(out: Path, reports: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Writes sweep.json and sweep.svg into `out`: one curve per named value, over the first numeric option that varies.

    Args:
        out: folder of the runs.
        reports: options that were set, and the report with them.

    Returns:
        A table in Markdown.
    """
    import matplotlib.figure

    rows = [
        {**point, "evaluations": network_evaluations(report["options"]), "score": report["score"]}
        | {"interval": report["intervals_95"].get(report["main"])}
        for point, report in reports
    ]
    (out / "sweep.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    keys = list(reports[0][0])
    numeric = [key for key in keys if all(isinstance(row[key], int | float) for row in rows)]
    across = max(numeric, key=lambda key: len({row[key] for row in rows}), default="evaluations")
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, axis in zip(panels, (across, "evaluations"), strict=True):
        curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            curves[", ".join(f"{key}={row[key]}" for key in keys if key != across)].append(row)
        for name, points in curves.items():
            points = sorted((p for p in points if p["score"] is not None), key=lambda p: p[axis])
            axes.plot([p[axis] for p in points], [p["score"] for p in points], "o-", label=name or None, markersize=3)
        axes.set_xlabel(axis.replace("_", " "))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(reports[0][1]["main"].replace("$", r"\$"))
    if any(len(keys) > 1 for _ in rows):
        panels[1].legend(fontsize=7)
    figure.savefig(out / "sweep.svg", metadata={"Date": None})
    head = [*keys, "evaluations", "score"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.4g}"
        lines.append("| " + " | ".join([*(str(row[key]) for key in head[:-1]), score]) + " |")
    return "\n".join([*lines, "", str(out / "sweep.svg")])
