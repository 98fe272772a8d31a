"""`paper.md`: tables of the finished runs next to the paper's figures, with intervals, effect sizes and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from janusflow.ablation.config import Ablation
from janusflow.ablation.figures import draw_figures
from janusflow.ablation.runs import Result, Run, with_finished
from janusflow.ablation.statistics import PAIRS, Interval, holm, interval, paired, pooled, smallest_effect, verdict
from janusflow.files import write_text

REPORT = "paper.md"
LEGEND = (
    "Differences are paired by seed, over the seeds that both have, with 95 % t intervals. d_z is Cohen's effect size: "
    "their mean in standard deviations. Visible is the difference that this many pairs detect with 80 % probability, "
    "given the standard deviation pooled over the variants. p is that of a paired t test, plain and with Holm's "
    "correction for the tests of claims in this table ({tests} in all). A claim, in parentheses, is supported if the "
    "interval excludes zero on its side, and confirmed if the corrected p is below 0.05, too; contradicted and refuted "
    'are the same on the other side. A verdict needs three pairs. "No difference found" does not mean equal.'
)

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""By variant, metric and seed."""


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write `paper.md` and its figures.

    Args:
        runs: runs of the ablation. All its finished runs are reported, including those not in the list.
        out: folder to write to.

    Returns:
        The path of `paper.md`.

    Raises:
        ValueError: if the result of a finished run is damaged.
    """
    runs, ablation = with_finished(runs), runs[0].ablation
    results = [found for run in runs if (found := run.result()) is not None]
    failed = [(run, said) for run in runs if run.result() is None and (said := run.failure()) is not None]
    values = by_seed(results)
    lines = [f"# {ablation.title}", "", _state(ablation, results), "", *_table(ablation, values), ""]
    lines += _differences(ablation, values)
    for file, caption in draw_figures(ablation, results, out).items():
        lines += ["", f"![{caption}]({file})"]
    if ablation.differs:
        lines += ["", "## What differs from the paper", "", *(f"- {sentence}" for sentence in ablation.differs)]
    if failed:
        lines += ["", "## Runs that failed", "", *(f"- {run.name}: {' '.join(said.split())}" for run, said in failed)]
    write_text(out / REPORT, "\n".join(lines) + "\n")
    return out / REPORT


def by_seed(results: Sequence[Result]) -> dict[str, dict[str, dict[int, float]]]:
    """Group scores by variant, metric and seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for result in results:
        for name, value in result.scores.items():
            found.setdefault(result.variant, {}).setdefault(name, {})[result.seed] = value
    return found


def pooled_deviations(values: Scores, baseline: str) -> dict[str, float]:
    """Return the standard deviation of the paired differences to the baseline by metric, pooled over the variants."""
    found: dict[str, list[tuple[int, float]]] = {}
    for variant, scores in values.items():
        for name in scores if variant != baseline else ():
            difference = paired(scores[name], values.get(baseline, {}).get(name, {}))
            if difference is not None and difference.deviation:
                found.setdefault(name, []).append((difference.n, difference.deviation))
    return {name: sd for name, several in found.items() if (sd := pooled(several))}


def _state(ablation: Ablation, results: Sequence[Result]) -> str:
    seconds, planned = sum(result.seconds for result in results), f"{len(ablation.variants)} variants, "
    planned += "1 seed" if ablation.seeds == 1 else f"{ablation.seeds} seeds"
    hours = f"{len(results)} runs are finished (the recipe has {planned}); they took {seconds / 3600:.2f} hours."
    return f"{hours} Means over seeds with 95 % t intervals."


def _table(ablation: Ablation, values: Scores) -> list[str]:
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


def _differences(ablation: Ablation, values: Scores) -> list[str]:
    lines = [f"## Differences to {ablation.baseline}", ""]
    deviations, tested = pooled_deviations(values, ablation.baseline), _tested(ablation, values)
    corrected = dict(zip(tested, holm([*tested.values()]), strict=True))
    rows = []
    for variant in ablation.variants:
        for name, metric in ablation.metrics.items():
            found, claim = _difference(ablation, values, variant, name), ablation.expected(variant, name)
            if found is None:
                continue
            published = "-"
            if {variant, ablation.baseline} <= metric.paper.keys():
                published = f"{metric.paper[variant] - metric.paper[ablation.baseline]:+.4g}"
            visible = "-"
            if name in deviations and found.n > 1:
                visible = f"{smallest_effect(deviations[name], found.n):.3g}"
            row = [variant, name, _signed(found), published, str(found.n)]
            enough = found.n >= PAIRS
            row += [f"{found.effect_size:+.2f}" if enough and found.effect_size is not None else "-", visible]
            row += [_number(found.p_value if enough else None), _number(corrected.get((variant, name)))]
            after = corrected.get((variant, name))
            rows.append([*row, verdict(found, claim, lower_is_better=metric.lower_is_better, corrected=after)])
    heads = ["variant", "metric", "difference", "in the paper", "pairs", "d_z", "visible", "p", "p, Holm", "verdict"]
    if not rows:
        return [*lines, "None yet."]
    return [*lines, *_markdown(heads, rows), "", LEGEND.format(tests=len(tested))]


def _difference(ablation: Ablation, values: Scores, variant: str, name: str) -> Interval | None:
    """Return the difference to the baseline, paired by seed; None for the baseline and for missing scores."""
    if variant == ablation.baseline:
        return None
    return paired(*(values.get(one, {}).get(name, {}) for one in (variant, ablation.baseline)))


def _tested(ablation: Ablation, values: Scores) -> dict[tuple[str, str], float]:
    """Return the p values of all claimed differences with enough pairs for a verdict, by variant and metric."""
    found: dict[tuple[str, str], float] = {}
    for variant in ablation.variants:
        for name in ablation.metrics:
            difference = _difference(ablation, values, variant, name)
            claimed = ablation.expected(variant, name) in ("better", "worse")
            if claimed and difference is not None and difference.n >= PAIRS and difference.p_value is not None:
                found[variant, name] = difference.p_value
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _mean(found: Interval) -> str:
    return f"{found.mean:.4g}" + ("" if found.half is None else f" ± {found.half:.2g}")


def _signed(found: Interval) -> str:
    if found.half is None:
        return f"{found.mean:+.4g}"
    return f"{found.mean:+.4g} [{found.mean - found.half:+.4g}, {found.mean + found.half:+.4g}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = (heads, ["---"] * len(heads), *rows)
    return [f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |" for row in table]
