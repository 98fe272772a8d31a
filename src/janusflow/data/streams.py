"""Sources that are read sequentially, without an index: their state is the position in the files.

A stream is read file by file (from the hub: shard by shard), so that a file that breaks off loses only its own rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from janusflow.data.constraints import NonNegativeInt
from janusflow.data.folders import Listed
from janusflow.data.records import Record, read_row
from janusflow.data.tars import Tars, read_remote


@dataclass(frozen=True)
class Place:
    """The position of a stream, as `StreamSource.state` returns it and files store it.

    Attributes:
        epoch, part, place: the next row's epoch, part of the data, and number in the epoch.
        begun: number of that part's first row.
        rows: state of the part's reader, if it has one.
        read: number of parts that were read to their end, and of rows in them.
    """

    epoch: NonNegativeInt
    part: NonNegativeInt
    place: NonNegativeInt
    begun: NonNegativeInt
    rows: dict[str, Any] | None
    read: tuple[NonNegativeInt, NonNegativeInt]

    def __post_init__(self) -> None:
        if self.begun > self.place:
            raise ValueError(f"begun is {self.begun}, which lies behind place {self.place}")


class EmptyStreamError(ValueError):
    """A whole epoch had no record, so trying again is useless."""


class LostRowsError(ValueError):
    """A part breaks off; `rows` is the number of rows lost with it, estimated from the parts read before."""

    def __init__(self, said: str, rows: int) -> None:
        super().__init__(said)
        self.rows = rows


class Parts(Protocol):
    """What a stream reads: the settings of a source of files."""

    @property
    def path(self) -> str: ...

    def parts(self) -> Sequence[Path | str]: ...

    def rows(self, files: Sequence[Path] | None = None) -> tuple[Any, Path]: ...


class StreamSource:
    """A data set that is read from its beginning, again and again.

    Args:
        rank, ranks: this process reads every `ranks`-th file or, where there are fewer files, every `ranks`-th row.

    Raises:
        ValueError: if the data set does not exist.
    """

    def __init__(self, config: Parts, rank: int, ranks: int) -> None:
        self.config, self.rank, self.ranks, self.name = config, rank, ranks, config.path
        self.files = config.parts()
        self._whole: Any = None
        self.folder = Path()
        if not self.files:
            self._whole, self.folder = config.rows()
        self.parts = len(self.files) or getattr(self._whole, "num_shards", 1)
        self._own = range(rank, self.parts, ranks) if self.parts >= ranks else range(self.parts)
        self._fault = ""
        self.read = (0, 0)  # parts read to their end, and rows in them
        self._go_to(0, 0, 0)

    def _go_to(self, epoch: int, part: int, place: int, rows: dict[str, Any] | None = None) -> None:
        """Continue in a part at the state `rows` of its reader, or at its first row."""
        self.epoch, self.part, self.place, self._saved = epoch, part, place, rows
        self.begun = place  # number of the part's first row
        self._rows: Any = None
        self._iterator: Iterator[Any] | None = None

    def _open_part(self) -> Iterator[Any]:
        """Return the rows of the current part."""
        part, taken = self._own[self.part], self.place - self.begun
        # Where processes share parts, each part begins with another process, so that short parts reach all of them.
        first, every = ((self.rank - part) % self.ranks, self.ranks) if self.parts < self.ranks else (0, 1)
        if self.files and isinstance(file := self.files[part], str):
            return islice(_remote(file), first + taken * every, None, every)
        if self._whole is None:
            rows, self.folder = self.config.rows([Path(self.files[part])])
        elif isinstance(self._whole, Tars | Listed):
            rows = self._whole
        else:  # always a new object: one that restored a state would start there in every epoch
            rows = self._whole.shard(self.parts, part)
        if isinstance(rows, Tars):
            return rows.in_order(first + taken * every, every)
        if isinstance(rows, Listed):
            return iter(rows[first + taken * every :: every])
        if every > 1:
            rows = rows.filter(partial(_falls_to, first, every), with_indices=True)
        if self._saved is not None:
            rows.load_state_dict(self._saved)
        self._rows = rows
        return iter(rows)

    def _part_name(self) -> str:
        part = self._own[self.part]
        return str(self.files[part]) if self.files else f"shard {part + 1} of {self.parts} of {self.name}"

    def next(self) -> Record:
        """Return the next record; after the last one, the first again.

        Raises:
            ValueError: as `take` does.
        """
        record = self.take()
        while record is None:
            record = self.take()
        return record

    def take(self) -> Record | None:
        """Return the next record, or None at the end of an epoch.

        Raises:
            ValueError: if it is malformed.
            LostRowsError: if its file breaks off; the next call returns the next file's first record.
            EmptyStreamError: if the epoch had no record.
        """
        while self.part < len(self._own):
            try:
                if self._iterator is None:
                    self._iterator = self._open_part()
                row = next(self._iterator, None)
            except Exception as error:  # errors of readers of tars, Parquet and the hub have no common class
                said = (str(error) or type(error).__name__).splitlines()[0]
                self._fault = (
                    f"{self._part_name()} cannot be read further, and the rest is skipped in this epoch: {said}"
                )
                mean = round(self.read[1] / self.read[0]) if self.read[0] else 0
                lost = max(mean - (self.place - self.begun), 1)
                self._go_to(self.epoch, self.part + 1, self.place)
                raise LostRowsError(self._fault, lost) from error
            if row is not None:
                self.place += 1
                return read_row(row, f"{self.name}[{self.epoch}:{self.place - 1}]", self.folder)
            self.read = (self.read[0] + 1, self.read[1] + self.place - self.begun)
            self._go_to(self.epoch, self.part + 1, self.place)
        if not self.place:
            raise EmptyStreamError(f"{self.name} contains no records for this process. {self._fault}".strip())
        self._go_to(self.epoch + 1, 0, 0)
        return None

    def state(self) -> dict[str, Any]:
        """Return the state from which the stream continues exactly here."""
        rows = self._saved if self._rows is None else self._rows.state_dict()
        places = {"epoch": self.epoch, "part": self.part, "place": self.place, "begun": self.begun}
        return {**places, "rows": rows, "read": list(self.read)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._go_to(state["epoch"], state["part"], state["place"], state["rows"])
        self.begun, self.read = state["begun"], (state["read"][0], state["read"][1])


def _remote(tar: str) -> Iterator[Any]:
    """Yield the rows of a tar on the hub, which is read once, without copying it."""
    import fsspec

    with fsspec.open(tar, "rb") as opened:
        yield from read_remote(opened, tar)


def _falls_to(rank: int, ranks: int, row: Any, index: int) -> bool:
    return index % ranks == rank
