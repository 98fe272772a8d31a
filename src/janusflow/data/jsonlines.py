"""Read JSON lines and arrays row by row.

A malformed line loses only its record, not the file, and columns need no common type.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FAULT = "__fault__"  # column of a row that could not be read: the reason
FOLDER = "__folder__"  # column with the folder that a row's relative paths start from: its file's folder
NAME = "__name__"  # column with the location of a row, for messages
AS_LINES = "an array is read from a .json file, or written as lines by `jq -c '.[]'`"


class JsonLines:
    """The rows of files, by index; blank lines do not count. Only the positions of rows are kept in memory.

    Args:
        files: files of JSON lines or of one array each, in the order of their rows.
        places: (N, 4) file, first byte, length and number (from 1) of each row; by default all rows of the files.
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
        """Select rows by index."""
        return JsonLines(self.files, self.places[list(indices)])


def read_lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of files, one file after the other."""
    for file in files:
        if is_array(file):
            yield from JsonLines([file])
            continue
        with file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield parse(line, file, number)


def parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    """Parse a line or an item of an array into a row with its `FOLDER` and `NAME`.

    A malformed one becomes a row with a `FAULT`, which names file and line, and its `NAME`.
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
    """Return whether a .json file contains one array, judged by its first byte that is not a space."""
    if file.suffix.lower() != ".json":
        return False
    with file.open("rb") as opened:
        return opened.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def is_lines(file: Path) -> bool:
    """Return whether a file contains JSON lines, not one array or compressed data, by its name or first bytes."""
    if file.suffix.lower() == ".jsonl":
        return True
    with file.open("rb") as opened:
        return opened.read(2) == b'{"'


def _lines(file: Path) -> Iterator[tuple[int, int, int]]:
    """Yield the first byte, length and number (from 1) of every line that is not blank."""
    start = 0
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield start, len(line), number
            start += len(line)


def _items(file: Path) -> Iterator[tuple[int, int, int]]:
    """Yield the first byte, length and number (from 1) of every item of an array; a malformed one extends to the end.

    The file is read as Latin-1, where each character is one byte and JSON's own symbols are the same.
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
