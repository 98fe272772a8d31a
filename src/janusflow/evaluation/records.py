"""Records of a run as JSON lines that several processes append to and a kill cannot spoil."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ESCAPED = "backslashreplace"  # how text is written that UTF-8 cannot hold, such as half of a pair of surrogates


class Records:
    """Files NAME-00000.jsonl, NAME-00001.jsonl, ... of a folder: each process appends to its own, all read all.

    Args:
        folder: of the run.
        name: of the files.
        rank: number of this process.
    """

    def __init__(self, folder: Path, name: str, rank: int = 0) -> None:
        self.folder, self.name = folder, name
        self.mine = folder / f"{name}-{rank:05d}.jsonl"

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one, on disk when this returns. What a kill left of a line is cut off before."""
        with self.mine.open("ab+") as handle:
            _cut(handle.fileno())
            handle.write((json.dumps(record) + "\n").encode())
            handle.flush()
            os.fsync(handle.fileno())

    def all(self) -> Iterator[dict[str, Any]]:
        """Complete ones of all processes.

        Raises:
            ValueError: if a line is damaged.
        """
        for file in sorted(self.folder.glob(f"{self.name}-*.jsonl")):
            for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(
                        f"{file}: line {number} is damaged; delete it, and its item is done anew"
                    ) from error


def _cut(handle: int) -> None:
    """Shortens a file to its last complete line."""
    size = os.lseek(handle, 0, os.SEEK_END)
    if not size or os.pread(handle, 1, size - 1) == b"\n":
        return
    content = os.pread(handle, size, 0)
    os.ftruncate(handle, content.rfind(b"\n") + 1)
