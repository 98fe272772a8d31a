"""JSON lines and arrays, read row by row: a malformed line costs its record, not the file, and columns need no common
type.
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
NAME = "__name__"  # the column of a row that says where it stands, for messages
AS_LINES = "an array is read from a .json file, or written as lines by `jq -c '.[]'`"


class JsonLines:
    """The rows of files by number; blank lines do not count. Only where they begin is kept in memory.

    Args:
        files: of lines or of one array, in the order of their rows.
        places: (N, 4) file, first byte, length and number (from 1) of each row; by default of all rows in the files.
    """

    def __init__(self, files: Sequence[Path], places: np.ndarray | None = None) -> None:
        self.files = tuple(files)
        if places is None:
            found = array("q")
            for index, file in enumerate(self.files):
                for start, length, number in _items(file) if is_array(file) else _lines(file):
                    found.extend((index, start, length, number))
            places = np.array(found, dtype=np.int64).reshape(-1, 4)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, start, length, number = map(int, self.places[index])
        with self.files[place].open("rb") as opened:
            opened.seek(start)
            return parse(opened.read(length), self.files[place], number)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> JsonLines:
        """Only those rows."""
        return JsonLines(self.files, self.places[list(indices)])


def read_lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of files, one after the other."""
    for file in files:
        if is_array(file):
            yield from JsonLines([file])
            continue
        with file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield parse(line, file, number)


def parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    """The row that a line or an item of an array holds, its `FOLDER` and its `NAME`; of a malformed one its
    `FAULT`, which names file and line, and its `NAME`.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = f"; {AS_LINES}" if line.lstrip().startswith(b"[") else ""
        said = "it is nested too deeply" if isinstance(error, RecursionError) else error
        return {FAULT: f"{file}:{number} is not valid JSON: {said}{hint}", NAME: f"{file}:{number}"}
    if not isinstance(row, dict):
        hint = f"; {AS_LINES}" if isinstance(row, list) else ""
        return {FAULT: f"{file}:{number} is not a JSON object but {type(row).__name__}{hint}", NAME: f"{file}:{number}"}
    return {**row, FOLDER: str(file.parent), NAME: f"{file}:{number}"}


def is_array(file: Path) -> bool:
    """Whether a .json file holds one array, by its first byte that is not a space."""
    if file.suffix.lower() != ".json":
        return False
    with file.open("rb") as opened:
        return opened.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def is_lines(file: Path) -> bool:
    """Whether a file holds JSON lines, and not one array or something compressed, by its name or its first bytes."""
    if file.suffix.lower() == ".jsonl":
        return True
    with file.open("rb") as opened:
        return opened.read(2) == b'{"'


def _lines(file: Path) -> Iterator[tuple[int, int, int]]:
    """First byte, length and number (from 1) of every line that is not blank."""
    start = 0
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield start, len(line), number
            start += len(line)


def _items(file: Path) -> Iterator[tuple[int, int, int]]:
    """First byte, length and number (from 1) of every item of an array; the rest behind a malformed one is one item.

    Read as Latin-1, a character is a byte, and JSON's own signs are the same.
    """
    text, decoder, number = file.read_bytes().decode("latin-1"), json.JSONDecoder(), 0
    place = _behind_space(text, text.index("[") + 1)
    while place < len(text) and text[place] != "]":
        number += 1
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield place, len(text) - place, number
            return
        yield place, end - place, number
        end = _behind_space(text, end)
        if text[end : end + 1] not in (",", "]"):
            yield end, len(text) - end, number + 1
            return
        place = _behind_space(text, end + 1) if text[end] == "," else end


def _behind_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
