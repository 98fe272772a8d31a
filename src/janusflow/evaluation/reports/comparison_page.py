"""Write a comparison of runs as a page that needs no network, as CSV and LaTeX, and as a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from janusflow.evaluation.reports.compare import Change, Comparison, Differences, FinishedRun
from janusflow.evaluation.reports.intervals import FEW
from janusflow.evaluation.reports.markup import csv_cell, one_line, tex_text
from janusflow.evaluation.reports.report import TEXT, number, render, thumbnail
from janusflow.files import write_text
from janusflow.pipelines.sheet import make_folder
from janusflow.processing.images import load_image

CHANGES = 30  # items shown with their pictures


def write_comparison(comparison: Comparison, out: Path, *, changes: int = CHANGES) -> Path:
    """Write compare.html, compare.csv, compare.tex and changed.csv.

    Args:
        changes: number of changed items that the page shows with their pictures; changed.csv has all.

    Returns:
        Path of the page.
    """
    make_folder(out)
    write_text(out / "compare.csv", _csv(list(_score_rows(comparison))))
    write_text(out / "changed.csv", _csv(list(_change_rows(comparison))))
    write_text(out / "compare.tex", latex(comparison))
    write_text(out / "compare.html", page(comparison, changes=changes))
    return out / "compare.html"


# --- cells ----------------------------------------------------------------------------------------------------------


def value_cell(run: FinishedRun, name: str) -> str:
    """Return a score with its interval."""
    value = run.report["scores"].get(name)
    if value is None:
        return number(value)
    low, high = run.report["intervals_95"].get(name) or (None, None)
    between = "" if low is None else f" [{number(low)}, {number(high)}]"
    return number(value) + between + _over(_n(run, name), run.report["judged"])


def difference_cell(differences: Differences, name: str) -> str:
    """Return a difference from the first run with its interval, both with their signs."""
    value = differences.values.get(name)
    if value is None:
        return ""
    low, high = differences.intervals_95.get(name) or (None, None)
    between = "" if low is None or high is None else f" [{_signed(low)}, {_signed(high)}]"
    return _signed(value) + between + _over(differences.n.get(name), differences.items)


def _n(run: FinishedRun, name: str) -> int | None:
    """Return the number of values behind a score; None if its benchmark does not know."""
    found: int | None = run.report.get("n", {}).get(name)
    return found


def _over(n: int | None, items: int) -> str:
    """Return a score's n if it is not all items, as the column's head says, and whether it is too small."""
    if n is None:
        return " (n unknown)"
    words = [*([f"n = {n}"] if n != items else []), *(["few"] if n < FEW else [])]
    return f" ({', '.join(words)})" if words else ""


def is_clear(differences: Differences, name: str) -> bool:
    """Return whether a difference's interval excludes zero."""
    low, high = differences.intervals_95.get(name) or (0.0, 0.0)
    return low > 0 or high < 0


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def heads(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the table's columns after the first: a run or difference, and the n of its values."""
    first, *others = comparison.runs
    found = [(first.name, f"n = {first.report['judged']}")]
    for run, differences in zip(others, comparison.differences, strict=True):
        found += [(run.name, f"n = {run.report['judged']}")]
        found += [("difference", f"n = {differences.items}")]
    return found


def cells(comparison: Comparison, name: str) -> list[tuple[str, bool]]:
    """Return a score's row after its name: the text, and whether it is a difference whose interval excludes zero."""
    first, *others = comparison.runs
    found = [(value_cell(first, name), False)]
    for run, differences in zip(others, comparison.differences, strict=True):
        found += [(value_cell(run, name), False)]
        found += [(difference_cell(differences, name), is_clear(differences, name))]
    return found


# --- forms ----------------------------------------------------------------------------------------------------------


def terminal_table(comparison: Comparison) -> Table:
    """Return the scores as a table for a terminal; differences whose interval excludes zero are bold."""
    first = comparison.runs[0]
    notes = [f"Differences are to {first.name}, over the items of both runs.", *comparison.notes]
    table = Table(title=Text(one_line(str(first.report["title"]))), caption=Text("\n".join(map(one_line, notes))))
    table.add_column("score", overflow="fold")
    for head, count in heads(comparison):
        table.add_column(Text(f"{one_line(head)}\n{count}"), justify="right", overflow="fold")
    for name in comparison.scores:
        row = [Text(text, style="bold" if clear else "") for text, clear in cells(comparison, name)]
        table.add_row(Text(one_line(name)), *row)
    return table


def latex(comparison: Comparison) -> str:
    """Return the scores as a `tabular` for the package booktabs; differences whose interval excludes zero are bold."""
    names = heads(comparison)
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule"]
    lines += [" & ".join(["", *(tex_text(head) for head, _ in names)]) + r" \\"]
    lines += [" & ".join(["score", *(f"${count}$" for _, count in names)]) + r" \\", r"\midrule"]
    for name in comparison.scores:
        row = [rf"\textbf{{{tex_text(text)}}}" if clear else tex_text(text) for text, clear in cells(comparison, name)]
        lines += [" & ".join([tex_text(name), *row]) + r" \\"]
    notes = [f"% {one_line(note)}" for note in comparison.notes]
    return "\n".join([*notes, *lines, r"\bottomrule", r"\end{tabular}", ""])


def page(comparison: Comparison, *, changes: int) -> str:
    """Return one page: the table, what differs, and the items that changed with their pictures."""
    return render(
        "compare.html.j2",
        report=comparison.runs[0].report,
        runs=[run.name for run in comparison.runs],
        notes=comparison.notes,
        heads=heads(comparison),
        rows=[(name, cells(comparison, name)) for name in comparison.scores],
        lower=comparison.runs[0].benchmark.lower_is_better,
        differing=comparison.differing,
        changed=len(comparison.changes),
        cards=[_card(comparison, change) for change in comparison.changes[:changes]],
        number=number,
    )


def _card(comparison: Comparison, change: Change) -> dict[str, Any]:
    """Return what the page shows of an item: its question's pictures, and each run's picture or answer."""
    drawn = comparison.runs[0].benchmark.drawn(change.item)
    outputs = []
    for run, row in zip(comparison.runs, change.rows, strict=True):
        if row is not None:
            picture = _thumbnail(run.folder / row.output) if drawn else None
            outputs.append((run.name, number(row.score), picture, "" if drawn else row.output[:TEXT]))
    return {
        "key": change.item.key,
        "prompt": change.item.prompt[:TEXT],
        "pictures": [] if drawn else [_thumbnail(picture) for picture in change.item.images],
        "outputs": outputs,
    }


def _thumbnail(picture: Any) -> str | None:
    try:
        return thumbnail(load_image(picture))
    except ValueError:  # deleted or damaged since
        return None


def _score_rows(comparison: Comparison) -> Iterator[Sequence[Any]]:
    """Yield a row for each score of each run."""
    yield ["score", "run", "value", "low", "high", "n", "difference", "difference_low", "difference_high", "n_common"]
    for name in comparison.scores:
        for run, differences in zip(comparison.runs, (None, *comparison.differences), strict=True):
            interval = run.report["intervals_95"].get(name) or ("", "")
            row = [name, run.name, run.report["scores"].get(name, ""), *interval, _n(run, name) or ""]
            if differences is None:
                yield [*row, "", "", "", ""]
            else:
                between = differences.intervals_95.get(name, ("", ""))
                yield [*row, differences.values.get(name, ""), *between, differences.n.get(name, "")]


def _change_rows(comparison: Comparison) -> Iterator[Sequence[Any]]:
    """Yield a row for each item with different scores."""
    names = [run.name for run in comparison.runs]
    yield ["key", "prompt", *(f"score: {name}" for name in names), *(f"output: {name}" for name in names)]
    for change in comparison.changes:
        scores = ["" if row is None else row.score for row in change.rows]
        outputs = ["" if row is None else row.output for row in change.rows]
        yield [change.item.key, change.item.prompt, *scores, *outputs]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([map(csv_cell, row) for row in rows])
    return stream.getvalue()
