"""Compare runs of one benchmark: scores, paired differences from the first run, and items that changed.

`compare_runs` reads the runs' folders and compares; `comparison_page.py` writes the result as HTML, CSV and LaTeX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.arguments import given
from janusflow.evaluation.protocol import Benchmark, Item, Row
from janusflow.evaluation.reports.finished import FinishedRun, open_runs, plain
from janusflow.evaluation.reports.intervals import FEW, bootstrap

UNIMPORTANT = ("threads", "batch_size")  # settings that change neither outputs nor verdicts
DIGEST = 12  # characters of a sha256 that are shown


@dataclass(frozen=True)
class Pair:
    """One item in two runs; the bootstrap clusters by `item`."""

    item: Item
    first: Row
    other: Row


@dataclass(frozen=True)
class Differences:
    """Scores of a run minus those of the first run, over the items that both have.

    Attributes:
        values: differences by score.
        intervals_95: intervals by score, from the paired bootstrap; none for distances between whole sets, or if every
            resample gives the same difference.
        items: number of items that both runs have.
        n: number of these items behind each score; a score whose n the benchmark does not know is missing.
    """

    values: Mapping[str, float]
    intervals_95: Mapping[str, tuple[float, float]]
    items: int
    n: Mapping[str, int]


@dataclass(frozen=True)
class Change:
    """An item with different scores; `rows` has one row for each run, None if a run lacks the item."""

    item: Item
    rows: tuple[Row | None, ...]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_runs`.

    Attributes:
        runs: runs in the given order; the first is the baseline.
        differences: differences of every run but the first.
        differing: what the runs were made with, where it differs: a value for each run, by name.
        changes: items whose score differs from the first run's, largest change first.
        notes: what a reader must know before the table.
    """

    runs: tuple[FinishedRun, ...]
    differences: tuple[Differences, ...]
    differing: Mapping[str, tuple[str, ...]]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def scores(self) -> list[str]:
        """Names of all scores of all runs, in the order of the reports; the main one first."""
        main = str(self.runs[0].report["main"])
        return list(dict.fromkeys([main, *(name for run in self.runs for name in run.report["scores"])]))


def compare_runs(folders: Sequence[Path], *, data: Path | None = None, any_data: bool = False) -> Comparison:
    """Compare finished runs of one benchmark with the first of them.

    Args:
        folders: folders of the runs, at least two.
        data: the benchmark's data, for the pictures of questions; by default, where each run read it.
        any_data: whether runs on different data may be compared, over the items that are the same in both.

    Raises:
        ValueError: for a folder without a report, fewer than two runs, different benchmarks or data, or runs that have
            no item in common.

    Example:
        >>> found = compare_runs([Path("runs/before"), Path("runs/after")])  # doctest: +SKIP
        >>> found.differences[0].values["overall"]  # doctest: +SKIP
    """
    if len(folders) < 2:
        raise ValueError(f"{given(len(folders), 'run')}; give two or more folders")
    twice = next((folder for folder in folders if [f.resolve() for f in folders].count(folder.resolve()) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} was given twice; give the folders of different runs")
    runs, notes = open_runs(folders, data)
    first = runs[0]
    for run in runs[1:]:
        _check_comparable(first, run, any_data=any_data)
    pairs = [list(_pairs(first, run)) for run in runs[1:]]
    for run, found in zip(runs[1:], pairs, strict=True):
        notes += _about_items(first, run, found)
    differing = _differing(runs)
    judging = [name for name in first.benchmark.judging if name not in (*UNIMPORTANT, "device") and name in differing]
    if judging:
        notes.append(
            f"The runs were judged with different {', '.join(judging)}: part of a difference may come from that."
        )
    return Comparison(
        runs=tuple(runs),
        differences=tuple(_differences(first, run, found) for run, found in zip(runs[1:], pairs, strict=True)),
        differing=differing,
        changes=tuple(_changes(runs, pairs)),
        notes=tuple(dict.fromkeys(notes)),
    )


# --- what differs ---------------------------------------------------------------------------------------------------


def _check_comparable(first: FinishedRun, run: FinishedRun, *, any_data: bool) -> None:
    """Check that two runs can be compared."""
    one, other = first.report["benchmark"], run.report["benchmark"]
    if one != other:
        raise ValueError(f"{first.folder} is a run of {one} and {run.folder} of {other}; compare runs of one benchmark")
    before, after = first.report["data_sha256"], run.report["data_sha256"]
    changed = [name for name in before if name in after and before[name] != after[name]]
    if changed and not any_data:
        raise ValueError(
            f"{first.folder} and {run.folder} were scored on different data: {', '.join(changed)}; "
            "run one again, or compare the items that are the same with --any-data"
        )


def _about_items(first: FinishedRun, run: FinishedRun, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield notes on items that are not in both runs."""
    if not pairs:
        raise ValueError(f"{first.folder} and {run.folder} have no judged item in common")
    for one, other in ((first, run), (run, first)):
        lacking = len(one.rows.keys() - other.rows.keys())
        if lacking:
            yield f"{lacking} of {len(one.rows)} items of {one.name} have no verdict in {other.name}."
    different = len(first.rows.keys() & run.rows.keys()) - len(pairs)
    if different:
        yield f"{different} items have the same key but other content in {run.name}; the differences leave them out."
    if len(pairs) < FEW:
        yield f"Only {len(pairs)} items are in both {first.name} and {run.name}: too few for a conclusion."


def _differing(runs: Sequence[FinishedRun]) -> dict[str, tuple[str, ...]]:
    """Return what the runs were made with, where they differ."""
    made = []
    for run in runs:
        report = run.report
        found = {name: report.get(name) for name in ("model", "vae", "dtype", "limit")}
        found |= {f"data: {name}": short(digest) for name, digest in report["data_sha256"].items()}
        found |= {"weights": short(_digest(report["weights_sha256"]))}
        found |= {**report.get("used", {}), **report["options"], **report["settings"]}
        made.append(found | {f"version of {name}": value for name, value in report["versions"].items()})
    names = [name for name in dict.fromkeys(name for found in made for name in found) if name not in UNIMPORTANT]
    shown = {name: tuple(_word(found.get(name)) for found in made) for name in names}
    return {name: values for name, values in shown.items() if len(set(values)) > 1}


def _digest(files: Mapping[str, str]) -> str:
    """Return one sha256 over files by name; "" if nothing is known."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else ""


def short(digest: str) -> str:
    """Return a digest's first characters."""
    return digest[:DIGEST]


def _word(value: Any) -> str:
    return "-" if value in (None, "") else value if isinstance(value, str) else json.dumps(value)


# --- differences ----------------------------------------------------------------------------------------------------


def _pairs(first: FinishedRun, run: FinishedRun) -> Iterator[Pair]:
    """Yield the items that both runs have with the same content; prompts may differ if settings do."""
    reworded = first.report["settings"] != run.report["settings"]
    for key, row in first.rows.items():
        other = run.rows.get(key)
        if other is None or plain(row.item.data) != plain(other.item.data):
            continue
        if reworded or row.item.prompt == other.item.prompt:
            yield Pair(row.item, row, other)


class _Paired:
    """Differences between two runs' scores over pairs, in the form of a benchmark for `bootstrap`."""

    def __init__(self, first: Benchmark, other: Benchmark) -> None:
        self.first, self.other = first, other

    def scores(self, pairs: Sequence[Pair]) -> dict[str, float]:
        before = self.first.scores([pair.first for pair in pairs])
        after = self.other.scores([pair.other for pair in pairs])
        return {name: after[name] - before[name] for name in before if name in after}


def _differences(first: FinishedRun, run: FinishedRun, pairs: Sequence[Pair]) -> Differences:
    paired: Any = _Paired(first.benchmark, run.benchmark)
    values = paired.scores(pairs)
    resampled: Any = pairs
    found = bootstrap(paired, resampled) if first.benchmark.bootstrap else {}
    intervals = {name: (low, high) for name, (low, high) in found.items() if low < high}
    if len(pairs) == len(first.rows) == len(run.rows):  # distances between whole sets are not recomputed
        before, after = first.report["scores"], run.report["scores"]
        values = {name: after[name] - before[name] for name in before if name in after and name not in values} | values
    samples = first.benchmark.samples([pair.first for pair in pairs])
    return Differences(values, intervals, len(pairs), {name: sample.n for name, sample in samples.items()})


def _changes(runs: Sequence[FinishedRun], pairs: Sequence[Sequence[Pair]]) -> list[Change]:
    """Return the items whose score in some run differs from the first run's, largest change first."""
    other = [{pair.item.key: pair.other for pair in found} for found in pairs]
    found = []
    for key, row in runs[0].rows.items():
        rows = [by_key.get(key) for by_key in other]
        largest = max((abs(one.score - row.score) for one in rows if one is not None), default=0.0)
        if largest:
            found.append((largest, Change(row.item, (row, *rows))))
    return [change for _, change in sorted(found, key=lambda pair: -pair[0])]
