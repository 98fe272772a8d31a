"""Read finished runs from their folders: the report and the judged items, checked before anything uses them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.evaluation.protocol import Benchmark, Item, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.files import loads, misfit, read_json

RESULT = {"key": str, "prompt": str, "seed": int, "group": str, "data": dict, "output": str, "verdict": dict}
REPORT = {
    **dict.fromkeys(("benchmark", "title", "main"), str),
    **dict.fromkeys(("scores", "intervals_95", "settings", "options", "versions"), dict),
    **dict.fromkeys(("data_sha256", "weights_sha256"), dict),
    "judged": int,
}


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its report and its judged items by key."""

    name: str
    folder: Path
    report: Mapping[str, Any]
    rows: Mapping[str, Row]
    benchmark: Benchmark


def open_runs(folders: Sequence[Path], data: Path | None) -> tuple[list[FinishedRun], list[str]]:
    runs, notes = [], list[str]()
    opened: dict[str, tuple[Benchmark, dict[str, Item]]] = {}
    for name, folder in zip(_names(folders), folders, strict=True):
        report, lines = _report(folder), _results(folder)
        if len(lines) != report["judged"]:
            raise ValueError(
                f"{folder / 'results.jsonl'} has {len(lines)} items and report.json {report['judged']}; "
                "run it again with --mode score"
            )
        place = data or (report.get("data") and Path(report["data"]))
        known = json.dumps([report["benchmark"], report["settings"], str(place)], sort_keys=True)
        if known not in opened:
            benchmark = EvalRequest(report["benchmark"], folder, data=place, settings=report["settings"]).open()
            try:
                opened[known] = benchmark, {item.key: item for item in benchmark.items()}
            except (ValueError, OSError) as error:  # the data is gone: only pictures of questions still need it
                opened[known] = benchmark, {}
                lacking = f"Pictures of questions are not shown: {error}"
                notes += [] if all(benchmark.drawn(_row(line, None).item) for line in lines) else [lacking]
        shared, items = opened[known]
        benchmark = copy.copy(shared)
        benchmark.out = folder
        rows = {line["key"]: _row(line, items.get(line["key"])) for line in lines}
        runs.append(FinishedRun(name, folder, report, rows, benchmark))
    return runs, notes


def _report(folder: Path) -> dict[str, Any]:
    file = folder / "report.json"
    try:
        found = read_json(file)
        if problem := misfit(found, REPORT) or _odd_number(found):
            raise ValueError(f"{file} is damaged: {problem}")
        return dict(found)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} has no report.json; give the folder of a finished run (--out of janusflow eval)"
        ) from error
    except ValueError as error:
        raise ValueError(f"{error}; run it again with --mode score") from error


def _odd_number(report: Mapping[str, Any]) -> str:
    """Return what is wrong with a report's scores and intervals; "" for nothing."""
    for name, value in report["scores"].items():
        if type(value) not in (int, float):
            return f"scores.{name} is {quoted(value)}"
    for name, pair in report["intervals_95"].items():
        if not isinstance(pair, list) or [type(end) in (int, float) for end in pair] != [True, True]:
            return f"intervals_95.{name} is {quoted(pair)}"
    return ""


def _results(folder: Path) -> list[dict[str, Any]]:
    """Read the judged items."""
    file = folder / "results.jsonl"
    found: list[dict[str, Any]] = []
    try:
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
            if line:
                found.append(_result(line, f"{file}: line {number} is damaged"))
    except FileNotFoundError as error:
        raise ValueError(f"{file} does not exist; run it again with --mode score") from error
    except ValueError as error:
        raise ValueError(f"{error}; run it again with --mode score") from error
    return found


def _result(line: bytes, damaged: str) -> dict[str, Any]:
    try:
        found = loads(line)
    except ValueError as error:
        raise ValueError(f"{damaged} ({error})") from error
    if problem := misfit(found, RESULT) or misfit(found["verdict"], {"score": (bool, int, float)}):
        raise ValueError(f"{damaged} ({problem})")
    return dict(found)


def _row(line: Mapping[str, Any], item: Item | None) -> Row:
    """Return a judged item, with its pictures if the data still has this item."""
    if item is None or item.prompt != line["prompt"] or plain(item.data) != line["data"]:
        item = Item(line["key"], line["prompt"], seed=line["seed"], group=line["group"], data=line["data"])
    return Row(item, line["output"], line["verdict"])


def _names(folders: Sequence[Path]) -> list[str]:
    """Return names for the runs: the folders' names, or their paths below a common folder if names repeat."""
    whole = [folder.resolve() for folder in folders]
    if len({folder.name for folder in whole}) == len(whole):
        return [folder.name for folder in whole]
    root = Path(os.path.commonpath([folder.parent for folder in whole]))
    return [str(folder.relative_to(root)) for folder in whole]


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
