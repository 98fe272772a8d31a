"""`paper.md`: tables next to the paper's figures, with intervals, effect sizes and verdicts, from finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from janusflow.ablation.config import Ablation
from janusflow.ablation.figures import draw_figures
from janusflow.ablation.runs import Result, Run, with_finished
from janusflow.ablation.statistics import Interval, interval, paired, smallest_effect, verdict
from janusflow.files import write_text

REPORT = "paper.md"


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write `paper.md` into a folder, and the figures that the runs allow.

    Args:
        runs: those that were asked for; other finished ones of the ablation are reported, too.
        out: the folder.

    Raises:
        ValueError: if the file of a finished run is damaged.
    """
    runs, ablation = with_finished(runs), runs[0].ablation
    results = [found for run in runs if (found := run.result()) is not None]
    failed = [(run, said) for run in runs if run.result() is None and (said := run.failure()) is not None]
    values = by_seed(results)
    lines = [f"# {ablation.title}", "", *_state(runs, results), "", *_table(ablation, values), ""]
    lines += _differences(ablation, values)
    for file, caption in draw_figures(ablation, results, out).items():
        lines += ["", f"![{caption}]({file})"]
    if ablation.differs:
        lines += ["", "## What differs from the paper", "", *(f"- {sentence}" for sentence in ablation.differs)]
    if failed:
        lines += ["", "## Runs that failed", "", *(f"- {run.name}: {said}" for run, said in failed)]
    write_text(out / REPORT, "\n".join(lines) + "\n")
    return out / REPORT


def by_seed(results: Sequence[Result]) -> dict[str, dict[str, dict[int, float]]]:
    """Scores by variant, metric and seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for result in results:
        for name, value in result.scores.items():
            found.setdefault(result.variant, {}).setdefault(name, {})[result.seed] = value
    return found


def _state(runs: Sequence[Run], results: Sequence[Result]) -> list[str]:
    seconds = sum(result.seconds for result in results)
    return [
        f"{len(results)} of {len(runs)} runs are finished; they took {seconds / 3600:.2f} hours. Means over seeds with "
        "95 % t intervals; differences are paired by seed, and their effect size is Cohen's d_z."
    ]


def _table(ablation: Ablation, values: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[str]:
    heads = ["variant", "", "runs"]
    for name, metric in ablation.metrics.items():
        heads.append(f"{name} {'↓' if metric.lower_is_better else '↑'}")
        heads += [f"paper: {metric.paper_title or name}"] if metric.paper else []
    rows = []
    for variant, changes in ablation.variants.items():
        measured = values.get(variant, {})
        row = [variant, changes.about, str(max(map(len, measured.values()), default=0))]
        for name, metric in ablation.metrics.items():
            row.append(_mean(interval([*measured[name].values()])) if name in measured else "-")
            row += [f"{metric.paper[variant]:g}" if variant in metric.paper else "-"] if metric.paper else []
        rows.append(row)
    return _markdown(heads, rows)


def _differences(ablation: Ablation, values: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[str]:
    lines = [f"## Differences to {ablation.baseline}", ""]
    rows, sentences = [], []
    for variant in (name for name in ablation.variants if name != ablation.baseline):
        for name, metric in ablation.metrics.items():
            both = [values.get(one, {}).get(name, {}) for one in (variant, ablation.baseline)]
            found, claim = paired(*both), ablation.expected(variant, name)
            if found is None:
                continue
            said = verdict(found, claim, lower_is_better=metric.lower_is_better)
            size = "-" if found.effect_size is None else f"{found.effect_size:+.2f}"
            visible = "-" if not found.deviation else f"{smallest_effect(found.deviation, found.n):.3g}"
            published = "-"
            if {variant, ablation.baseline} <= metric.paper.keys():
                published = f"{metric.paper[variant] - metric.paper[ablation.baseline]:+.4g}"
            rows.append([variant, name, _signed(found), size, str(found.n), visible, published])
            pairs = "1 pair" if found.n == 1 else f"{found.n} pairs"
            sentences.append(f"- **{variant}, {name}**: {said} ({_signed(found)}; {pairs}).")
    heads = ["variant", "metric", "difference", "effect size", "pairs", "smallest visible", "paper's difference"]
    return [*lines, *_markdown(heads, rows), "", "## Verdicts", "", *sentences] if rows else [*lines, "None yet."]


def _mean(found: Interval) -> str:
    return f"{found.mean:.4g}" + ("" if found.half is None else f" ± {found.half:.2g}")


def _signed(found: Interval) -> str:
    if found.half is None:
        return f"{found.mean:+.4g}"
    return f"{found.mean:+.4g} [{found.mean - found.half:+.4g}, {found.mean + found.half:+.4g}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
