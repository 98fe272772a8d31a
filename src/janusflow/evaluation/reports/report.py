"""Write a run's report as JSON, Markdown and one HTML page that needs no network: scores with n and intervals."""

from __future__ import annotations

import io
import itertools
import json
import math
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from janusflow.arguments import counted
from janusflow.checkpoint.load import open_checkpoint
from janusflow.evaluation.judges.endpoint import data_url
from janusflow.evaluation.protocol import Benchmark, Item, Row
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.reports.intervals import FEW, intervals
from janusflow.evaluation.reports.markup import markdown_code, markdown_text, plain_label
from janusflow.evaluation.request import EvalRequest
from janusflow.files import write_text
from janusflow.folders import WEIGHT_FILES, find_folder
from janusflow.processing.images import load_image
from janusflow.vae import DEFAULT_VAE, vae_weights

GALLERY = 12  # number of best and of worst items shown
THUMBNAIL = 192  # pixels
MAGNITUDES = (-1.0, 1.0, 100.0, math.inf)  # shares, percentages, points
TEXT = 600  # characters of an answer shown
PACKAGES = ("janusflow", "torch", "transformers", "diffusers", "numpy", "pillow")


def write_report(
    benchmark: Benchmark,
    request: EvalRequest,
    items: Sequence[Item],
    rows: Sequence[Row],
    missing: Mapping[str, str],
    made: Mapping[str, Any],
) -> dict[str, Any]:
    """Write report.json, report.md and report.html into the run's folder.

    Args:
        missing: why the other items have no verdict, by key.
        made: what the outputs were made with, as in run.json.

    Returns:
        The content of report.json.
    """
    scores = benchmark.scores(rows) | benchmark.scores_of_all(rows) if rows else {}
    scores = {name: value for name, value in scores.items() if math.isfinite(value)}  # NaN is not a score
    samples = benchmark.samples(rows) if rows else {}
    report = {
        "benchmark": request.benchmark,
        "title": benchmark.title,
        "main": benchmark.main,
        "score": scores.get(benchmark.main),
        "scores": scores,
        "n": {name: samples[name].n for name in scores if name in samples},
        "intervals_95": intervals(benchmark, rows, scores, samples),
        "unreadable": sum(int(row.verdict.get("unreadable", 0)) for row in rows),
        "items_unreadable": sum(bool(row.verdict.get("unreadable")) for row in rows),
        "items": len(items),
        "official_items": benchmark.official_items,
        "limit": request.limit,
        "data": None if request.data is None else str(request.data.resolve()),
        "judged": len(rows),
        "not_judged": dict(list(missing.items())[:100]),
        **{name: made[name] for name in ("model", "vae", "dtype", "options", "weights_sha256", "data_sha256")},
        "used": made.get("used", {}),
        "settings": vars(benchmark.settings),
        "seeds": sorted({row.item.seed for row in rows if benchmark.drawn(row.item)})[:100],
        "published": {who: dict(row) for who, row in benchmark.published.items()},
        "versions": {"python": platform.python_version(), **_versions()},
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    report = json.loads(json.dumps(report, default=str))
    write_text(request.out / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(request.out / "report.md", markdown(report))
    write_text(request.out / "report.html", html(benchmark, report, rows))
    if request.score_output_path is not None:
        found = {
            "result_file": str(request.out / "results.jsonl"),
            "final_score": report["score"],
            "n": report["n"].get(benchmark.main),
        }
        write_text(request.score_output_path, json.dumps(found) + "\n")
    return report


# --- what made it ---------------------------------------------------------------------------------------------------


def weights_of(model: str, vae: str | None, *, draws: bool) -> list[Path]:
    """Return the weight files of a model, and of its VAE if that is separate.

    Args:
        model: "tiny", a folder or a hub id.
        vae: a folder or a hub id; None for the model's own, or the default.
        draws: whether a VAE is needed.

    Raises:
        ValueError: if the model cannot be found.
    """
    folder = find_folder(model).absolute()
    found = [file for pattern in WEIGHT_FILES for file in folder.rglob(pattern)]
    if draws and vae is None and not (folder / "vae").is_dir() and open_checkpoint(folder).family.separate_vae:
        vae = DEFAULT_VAE
    return sorted({*found, *(vae_weights(vae) if draws and vae else ())})


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# --- to read --------------------------------------------------------------------------------------------------------


def table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of text: names of scores, this run with n and intervals, and each published model."""
    names = list(report["scores"])
    others = report["published"]
    rows = [["score", "this run", "n", "95 % interval", *others]]
    for name in [*names, *(n for n in {n: 0 for row in others.values() for n in row} if n not in names)]:
        low, high = report["intervals_95"].get(name, (None, None))
        between = "" if low is None else f"{number(low)} to {number(high)}"
        published = [number(scores.get(name)) for scores in others.values()]
        rows.append([name, number(report["scores"].get(name)), count(report, name), between, *published])
    return rows


def count(report: Mapping[str, Any], name: str) -> str:
    """Return the number of values behind a score, marked if they are few; empty if there is no score."""
    n = report.get("n", {}).get(name)
    if n is None:
        return "unknown" if name in report["scores"] else ""
    return f"{n:,}{' (few)' if n < FEW else ''}"


def number(value: float | None) -> str:
    """Format a number with four significant digits or, from 1,000 on, one decimal; None is empty."""
    return "" if value is None else f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def notes(report: Mapping[str, Any], caveat: str) -> list[str]:
    """Return what a reader must know before the table: a partial run, items without a verdict, a caveat."""
    found, whole = [], report["official_items"]
    if report["limit"] or (whole and report["items"] != whole):
        of = f" of the official {whole:,}" if whole else ""
        found.append(f"Partial run: {counted(report['items'], 'item')}{of}{' (--limit)' if report['limit'] else ''}.")
    if n := {name: n for name, n in report.get("n", {}).items() if n < FEW}:
        names = "; ".join(list(n)[:3]) + (f" and {len(n) - 3} others" if len(n) > 3 else "")
        found.append(f"Too few to compare (n < {FEW}): {names}.")
    if unread := report.get("unreadable"):
        where = f"in {report['items_unreadable']:,} of {report['judged']:,} items"
        found.append(
            f"Unreadable answers: {unread:,}, {where}. They are scored by the benchmark's rule, as if they were read."
        )
    if report["not_judged"]:
        missing, first = report["items"] - report["judged"], next(iter(report["not_judged"].values()))
        found.append(f"Without a verdict: {missing}, for example: {' '.join(first.split())}")
    if report["judged"] and report["score"] is None:
        found.append(f"There is no score {report['main']!r} for these items.")
    return [*found, caveat] if caveat and report["published"] else found


def summary(report: Mapping[str, Any]) -> str:
    """Return the table of scores in Markdown, after what a reader must know."""
    head, *rows = table(report)
    lines = [f"# {markdown_text(report['title'])}: {markdown_text(report['model'])}", ""]
    lines += [f"{report['judged']} of {report['items']} items judged; {report['date']}.", ""]
    for note in notes(report, find_benchmark(report["benchmark"]).caveat):
        lines += [markdown_text(note), ""]
    lines += [markdown_row(head), "| --- |" + " ---: |" * (len(head) - 1), *map(markdown_row, rows), ""]
    return "\n".join(lines)


def markdown(report: Mapping[str, Any]) -> str:
    """Return the summary, and what the run was made with."""
    names = ("options", "used", "settings", "dtype", "versions", "weights_sha256", "data_sha256")
    return "\n".join([summary(report), *(f"- {name}: {markdown_code(json.dumps(report[name]))}" for name in names), ""])


def markdown_row(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(map(markdown_text, cells)) + " |"


def html(benchmark: Benchmark, report: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return one page: the score, a chart, the table, and the best and the worst items."""
    head, *scores = table(report)
    details = ("options", "used", "settings", "seeds", "versions", "weights_sha256", "data_sha256")
    return render(
        "report.html.j2",
        report=report,
        number=number,
        count=count,
        notes=notes(report, benchmark.caveat),
        head=head,
        rows=scores,
        chart=chart(report),
        galleries=[
            (title, [_card(benchmark, row) for row in picked(rows, best=title == "Best")])
            for title in ("Best", "Worst")
        ],
        details={name: report[name] for name in details},
    )


def picked(rows: Sequence[Row], *, best: bool, count: int = GALLERY) -> list[Row]:
    """Return the best or the worst items, from each part of the benchmark (the folder of an item's key) in turn.

    Items with the lowest score of all are not among the best, nor those with the highest among the worst, unless all
    scores are equal.
    """
    scores = {row.score for row in rows}
    other = None if len(scores) == 1 else (min if best else max)(scores, default=None)
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.score, reverse=best):
        if row.score != other:
            parts[row.item.key.rpartition("/")[0]].append(row)
    in_turn = [row for rank in itertools.zip_longest(*parts.values()) for row in rank if row is not None]
    return in_turn[:count]


def chart(report: Mapping[str, Any]) -> str:
    """Return an SVG of the scores as bars with intervals, next to published ones, with an axis for each magnitude."""
    import matplotlib.figure

    shown = {name: value for name, value in report["scores"].items() if math.isfinite(value)}
    if not shown:
        return ""
    limits = itertools.pairwise(MAGNITUDES)
    panels = [{name: value for name, value in shown.items() if low < abs(value) <= high} for low, high in limits]
    panels = [panel for panel in panels if panel]
    heights = [0.8 + 0.34 * len(part) for part in panels]
    figure = matplotlib.figure.Figure(figsize=(8, sum(heights)), layout="constrained")
    for axes, part in zip(
        figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0], panels, strict=True
    ):
        _bars(axes, part, report)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _bars(axes: Any, shown: Mapping[str, float], report: Mapping[str, Any]) -> None:
    places = range(len(shown))
    between = [report["intervals_95"].get(name, (value, value)) for name, value in shown.items()]
    errors = [[max(v - low, 0) for v, (low, _) in zip(shown.values(), between, strict=True)]]
    errors += [[max(high - v, 0) for v, (_, high) in zip(shown.values(), between, strict=True)]]
    axes.barh(places, list(shown.values()), xerr=errors, color="#4878a8", ecolor="#222", capsize=2, label="this run")
    for mark, (who, row) in zip("o^sDvPX*", report["published"].items(), strict=False):
        points = [(row[name], place) for place, name in zip(places, shown, strict=True) if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), mark, label=plain_label(who), markersize=5, linestyle="none")
    ns = [report.get("n", {}).get(name) for name in shown]
    labels = map(plain_label, shown)
    axes.set_yticks(places, [name if n is None else f"{name} (n={n:,})" for name, n in zip(labels, ns, strict=True)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.invert_yaxis()
    if report["published"]:
        axes.legend(fontsize=7)


def _card(benchmark: Benchmark, row: Row) -> dict[str, Any]:
    """Return what the page shows of an item."""
    pictures = [benchmark.out / row.output] if benchmark.drawn(row.item) else list(row.item.images)
    answer = "" if benchmark.drawn(row.item) else row.output[:TEXT]
    said = {name: value for name, value in row.verdict.items() if name != "score" and value not in ("", None, [], {})}
    verdict = ", ".join(f"{name}: {_words(value)}" for name, value in said.items())[:TEXT]
    return {
        "key": row.item.key,
        "prompt": row.item.prompt[:TEXT],
        "answer": answer,
        "verdict": verdict,
        "score": row.score,
        "pictures": [thumbnail(load_image(picture)) for picture in pictures],
    }


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def thumbnail(picture: Image.Image) -> str:
    """Return a picture as a data URL, its longer side at most `THUMBNAIL`."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(small)


def render(template: str, **values: Any) -> str:
    """Render a page from a template in this folder."""
    from jinja2 import Environment

    text = files("janusflow.evaluation.reports").joinpath(template).read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text).render(values)
