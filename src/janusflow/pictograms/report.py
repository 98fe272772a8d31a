"""Report the contents of a data set, as `report.json` and `report.md`.

The numbers are counted in the files that were written.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from janusflow.files import write_text
from janusflow.pictograms.catalogue import NAMES, SOURCES
from janusflow.pictograms.pictures import Collection
from janusflow.pictograms.shards import TWIN, files_of, read_table, skipped_in

COLUMNS = ("id", "style", "source", "group", "background", "variant")


def write_report(out: Path, settings: dict[str, Any], collection: Collection) -> dict[str, Any]:
    """Count what the files of a data set contain, and write `report.json` and `report.md`.

    Args:
        out: folder of the data set.
        settings: settings of the build.
        collection: what was read and left out.
    """
    shards, other = files_of(out)
    counts = {"train": _counted(shards), "held_out": _counted([other])}
    kinds = Counter(read_table(other, ["held_out"])["held_out"].to_pylist())
    failed = {name: why for file in [*shards, other] for name, why in skipped_in(file).items()}
    twins = sorted(name for name, why in failed.items() if why == TWIN)
    skipped = {name: {why: n for why, n in found.items() if n} for name, found in collection.skipped.items()}
    incomplete = len({one.subject.id for one in collection.drawings.get("phosphor", [])}) - len(collection.icons())
    if incomplete:
        skipped["phosphor"]["subject without all six weights"] = incomplete
    report = {
        "pictures": {split: found["pictures"] for split, found in counts.items()},
        "rows": {split: found["rows"] for split, found in counts.items()},
        "bytes": sum(file.stat().st_size for file in [*shards, other]),
        "shards": len(shards),
        "pictures by style": {split: found["style"] for split, found in counts.items()},
        "pictures by source": {split: found["source"] for split, found in counts.items()},
        "pictures by group": {split: found["group"] for split, found in counts.items()},
        "rows by background": counts["train"]["background"],
        "held out": dict(kinds),
        "left out": {name: found for name, found in skipped.items() if found},
        "held out under another name": twins,
        "not rendered": {name: why for name, why in failed.items() if why != TWIN},
        "packages": {package.name: f"{package.version} {package.integrity}" for package in collection.packages},
        "licences": {
            source.name: {"licence": source.licence, "by": source.holder, "stated in": source.origin}
            for source in SOURCES
            if source.name in collection.drawings
        }
        | {"names": {"licence": "MIT", "by": "Miles Johnson", "stated in": f"LICENSE of {NAMES.name}"}},
        "settings": settings,
    }
    write_text(out / "report.md", _as_text(report))
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")  # marks a finished build
    return report


def _counted(files: list[Path]) -> dict[str, Any]:
    """Count pictures by style, source and group, and rows by background."""
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for file in files:
        table = read_table(file, COLUMNS)
        for name in COLUMNS:
            rows[name] += table[name].to_pylist()
    first = [number for number, variant in enumerate(rows["variant"]) if not variant]
    found: dict[str, Any] = {"rows": len(rows["id"]), "pictures": len(first)}
    for name in ("style", "source", "group"):
        found[name] = dict(Counter(rows[name][number] for number in first).most_common())
    return found | {"background": dict(Counter(rows["background"]).most_common())}


def _as_text(report: dict[str, Any]) -> str:
    pictures, rows = report["pictures"], report["rows"]
    lines = [
        f"# {pictures['train']:,} pictures in {rows['train']:,} rows for training, {pictures['held_out']:,} held out",
        "",
        f"{report['settings']['size']} px, {report['shards']} shards, {report['bytes'] / 1e6:.0f} MB.",
        "",
    ]
    for title, key in (
        ("style", "pictures by style"),
        ("source", "pictures by source"),
        ("group", "pictures by group"),
    ):
        train, other = report[key]["train"], report[key]["held_out"]
        lines += [f"| {title} | training | held out |", "| --- | --- | --- |"]
        lines += [f"| {name} | {train.get(name, 0)} | {other.get(name, 0)} |" for name in {**train, **other}]
        lines.append("")
    lines += ["| background | rows |", "| --- | --- |"]
    lines += [f"| {name} | {count} |" for name, count in report["rows by background"].items()]
    lines += ["", "| held out because of | pictures |", "| --- | --- |"]
    lines += [f"| {name} | {count} |" for name, count in report["held out"].items()]
    lines += ["", "| source | licence | by | stated in |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {one['licence']} | {one['by']} | {one['stated in']} |" for name, one in report["licences"].items()
    ]
    lines += ["", "| source | left out | files |", "| --- | --- | --- |"]
    lines += [f"| {name} | {why} | {n} |" for name, found in report["left out"].items() for why, n in found.items()]
    twins = report["held out under another name"]
    lines += ["", f"Left out of training as the same picture as one held out: {len(twins)}."]
    lines += [f"- {name}" for name in twins]
    lines += ["", f"Not rendered: {len(report['not rendered'])}."]
    lines += [f"- {name}: {why}" for name, why in report["not rendered"].items()]
    lines += ["", "The texts of the licences and a notice to keep with data and weights are in `licences/`."]
    return "\n".join(lines) + "\n"
