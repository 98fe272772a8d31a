"""Records of a run as JSON Lines; several processes append to them, and a killed process cannot damage them."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from janusflow.files import loads, misfit

OUTPUTS, VERDICTS = ("output",), ("verdict", "error")  # such a record has one of these fields
KINDS: dict[str, Any] = {  # types of a record's fields
    "key": str,
    "output": str,
    "asked": (str, type(None)),
    "turn": int,
    "of": (str, type(None)),
    "verdict": dict,
    "error": str,
}
CHECK = "crc32"  # checksum of a record's other fields; detects a changed answer or score


class Records:
    """Files NAME-00000.jsonl, NAME-00001.jsonl, ... in a folder: each process appends to its own file and reads all."""

    def __init__(self, folder: Path, name: str, rank: int = 0) -> None:
        self.folder, self.name = folder, name
        self.mine = folder / f"{name}-{rank:05d}.jsonl"

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on disk when this returns. An incomplete line of a killed process is removed first."""
        line = json.dumps({**record, CHECK: _checksum(record)}, allow_nan=False) + "\n"
        with self.mine.open("ab+") as handle:
            _cut(handle.fileno())
            handle.write(line.encode())
            handle.flush()
            os.fsync(handle.fileno())

    def all(self, one_of: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
        """Yield the complete records of all processes.

        Args:
            one_of: fields of which each record must have at least one.

        Raises:
            ValueError: if a line is damaged.
        """
        for file in sorted(self.folder.glob(f"{self.name}-*.jsonl")):
            for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    yield _record(line, one_of)
                except ValueError as error:
                    raise ValueError(
                        f"{file}: line {number} is damaged ({error}); delete it, and its item is done again"
                    ) from error


def _record(line: bytes, one_of: tuple[str, ...]) -> dict[str, Any]:
    """Return the record in a line; lines of earlier versions have no checksum."""
    record = loads(line)
    if problem := misfit(record, KINDS, optional=KINDS.keys() - {"key"}):
        raise ValueError(problem)
    if CHECK in record and record.pop(CHECK) != _checksum(record):
        raise ValueError("its checksum differs")
    if one_of and not any(field in record for field in one_of):
        raise ValueError(f"it has no {' or '.join(one_of)}")
    if "verdict" in record:
        score = record["verdict"].get("score")
        if not isinstance(score, (int, float)) or not math.isfinite(score):
            raise ValueError("its verdict has no score")
    return dict(record)


def _checksum(record: Mapping[str, Any]) -> int:
    """Return the checksum of a record without that field; it is the same after a round trip through JSON."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _cut(handle: int) -> None:
    """Truncate a file to its last complete line."""
    size = os.lseek(handle, 0, os.SEEK_END)
    if not size or os.pread(handle, 1, size - 1) == b"\n":
        return
    content = os.pread(handle, size, 0)
    os.ftruncate(handle, content.rfind(b"\n") + 1)
