"""The rows of a run's `log.jsonl`: the measurements of each step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from janusflow.files import loads, write_text

NAMES = ("skipped", "notes")  # columns with lists of strings; the others contain numbers


def begin_log(file: Path, last: int) -> None:
    """Create a log's folder, and drop the rows after step `last` that an earlier, killed run wrote."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        write_text(file, "".join(json.dumps(row) + "\n" for row in read_log(file) if row["step"] <= last))


def append_row(file: Path, row: dict[str, Any]) -> None:
    """Append a row."""
    with file.open("a") as log:
        log.write(json.dumps(row) + "\n")


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a log in order; empty without a log.

    Lines that a killed process did not finish, or that were damaged later, are skipped: resuming does not need the log.
    """
    found = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            row = loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and all(_fits(*item) for item in row.items()):
            found.append(row)
    return found


def _fits(name: str, value: Any) -> bool:
    if name in NAMES:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return value is None or type(value) in (int, float)
