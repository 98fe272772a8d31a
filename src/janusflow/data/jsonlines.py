"""JSON lines, read one by one: a malformed one costs its record, not the file, and columns need no common type.

`sources.py` and `streams.py` read .jsonl files through this and everything else through `datasets`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FAULT = "__fault__"  # the column of a row that could not be read: it says why
FOLDER = "__folder__"  # the column of a row that names what its relative paths start from: its file's folder
AS_LINES = "an array is read from a .json file, or written as lines by `jq -c '.[]'`"
METADATA = "metadata.jsonl"
METADATA_COLUMNS = {"file_name": "image", "file_names": "images"}  # as `datasets` reads a folder of pictures


class JsonLines:
    """The rows of files by number; blank lines do not count. Only where they begin is kept in memory.

    Args:
        files: in the order of their rows.
        places: (N, 3) file, byte and line number of each row; by default of all rows in the files.
    """

    def __init__(self, files: Sequence[Path], places: np.ndarray | None = None) -> None:
        self.files = tuple(files)
        if places is None:
            found = array("q")
            for index, file in enumerate(self.files):
                for start, number, _ in _lines(file):
                    found.extend((index, start, number))
            places = np.array(found, dtype=np.int64).reshape(-1, 3)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, start, number = map(int, self.places[index])
        with self.files[place].open("rb") as opened:
            opened.seek(start)
            return parse(opened.readline(), self.files[place], number)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> JsonLines:
        """Those rows alone."""
        return JsonLines(self.files, self.places[list(indices)])


def read_lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of files, one after the other."""
    for file in files:
        for _, number, line in _lines(file):
            yield parse(line, file, number)


def parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    """The row that a line holds, and its `FOLDER`; of a malformed one a row whose only column, `FAULT`, names file and
    line.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = f"; {AS_LINES}" if line.lstrip().startswith(b"[") else ""
        return {FAULT: f"{file}:{number} is no valid JSON: {error}{hint}"}
    if not isinstance(row, dict):
        hint = f"; {AS_LINES}" if isinstance(row, list) else ""
        return {FAULT: f"{file}:{number} is no JSON object but {type(row).__name__}{hint}"}
    if file.name == METADATA:
        row = {METADATA_COLUMNS.get(str(name), name): value for name, value in row.items()}
    return {**row, FOLDER: str(file.parent)}


def is_lines(file: Path) -> bool:
    """Whether a file holds JSON lines, and not one array or something compressed, by its name or its first bytes."""
    if file.suffix == ".jsonl":
        return True
    with file.open("rb") as opened:
        return opened.read(2) == b'{"'


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """First byte, number (from 1) and content of every line that is not blank."""
    start = 0
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield start, number, line
            start += len(line)
