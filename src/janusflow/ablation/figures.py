"""The figures of `paper.md`: scores over the steps of training, and over an option of sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from janusflow.ablation.config import Ablation
from janusflow.ablation.runs import Result
from janusflow.ablation.statistics import PAIRS, interval
from janusflow.files import temporary_path

CURVES, OPTIONS = "curves.png", "options.png"
BANDS = "with 95 % bands from three seeds on, and single seeds where there are fewer"

Points = Mapping[float, Sequence[float]]
"""Scores of all seeds by place on the horizontal axis."""


def draw_figures(ablation: Ablation, results: Sequence[Result], out: Path) -> dict[str, str]:
    """Draw the figures for which there are results.

    Returns:
        Captions by file name: `curves.png` if runs were evaluated at several steps, and `options.png` if at least three
        variants differ only in the value of one numeric option.
    """
    found = {}
    if any(len(result.curve) > 1 for result in results):
        _draw([("step", name, over_steps(results, name)) for name in ablation.metrics], out / CURVES)
        found[CURVES] = f"Scores over the steps of the last stage, {BANDS}"
    options = numbers(ablation, results)
    if panels := [
        (option, name, {"": over_option(options[option], name)}) for option in options for name in ablation.metrics
    ]:
        _draw(panels, out / OPTIONS)
        found[OPTIONS] = f"Scores over {' and '.join(options)}, {BANDS}"
    return found


def over_steps(results: Iterable[Result], metric: str) -> dict[str, dict[float, list[float]]]:
    """Return the scores of a metric by variant and step."""
    found: dict[str, dict[float, list[float]]] = {}
    for result in results:
        for step, scores in result.curve.items():
            if metric in scores:
                found.setdefault(result.variant, {}).setdefault(step, []).append(scores[metric])
    return found


def numbers(ablation: Ablation, results: Sequence[Result]) -> dict[str, dict[float, list[Result]]]:
    """Group results by option and value, for numeric options with three or more values that change nothing else."""
    common: dict[str, object] = {}
    for evaluation in ablation.evaluations.values():
        common |= evaluation.options
    found: dict[str, dict[float, list[Result]]] = {}
    for option in dict.fromkeys(name for variant in ablation.variants.values() for name in variant.options):
        values: dict[float, list[Result]] = {}
        for result in results:
            variant = ablation.variants[result.variant]
            asked = common | variant.options
            alone = all(asked[name] == common.get(name) for name in asked if name != option)
            value = asked.get(option)
            unchanged = not (variant.set or variant.stages or variant.without or variant.share != 1)
            if alone and unchanged and isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(value, []).append(result)
        if len(values) > 2:
            found[option] = values
    return found


def over_option(results: Mapping[float, Sequence[Result]], metric: str) -> dict[float, list[float]]:
    """Return the scores of a metric by value of the option."""
    scores = {value: [one.scores[metric] for one in some if metric in one.scores] for value, some in results.items()}
    return {value: some for value, some in scores.items() if some}


def _draw(panels: Sequence[tuple[str, str, Mapping[str, Points]]], file: Path) -> None:
    """Draw one panel for each (label of x, label of y, lines by label)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for place, (across, up, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place, xlabel=across, ylabel=up)
        for label, scores in lines.items():
            places = sorted(scores)
            means = [interval(scores[one]) for one in places]
            (line,) = axes.plot(places, [one.mean for one in means], marker=".", label=label)
            halves = [one.half if one.half is not None and one.n >= PAIRS else 0.0 for one in means]
            low, high = ([one.mean + sign * half for one, half in zip(means, halves, strict=True)] for sign in (-1, 1))
            axes.fill_between(places, low, high, alpha=0.2)
            for one in places:
                if len(scores[one]) < PAIRS:
                    axes.scatter([one] * len(scores[one]), scores[one], s=8, alpha=0.5, color=line.get_color())
        if any(lines):
            axes.legend()
    with temporary_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
        temporary.replace(file)
