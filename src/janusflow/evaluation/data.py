"""Read the files of the understanding benchmarks: JSON, TSV and parquet, and the pictures that they name or contain.

Errors about missing or damaged files are one sentence: the file, the problem, and where the file comes from.
"""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from janusflow.evaluation.protocol import Benchmark, Item, Row
from janusflow.extras import require
from janusflow.files import loads
from janusflow.processing.images import load_image

ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # last bytes of whole JPEG and PNG files, by first bytes
T = TypeVar("T")


class DataFolder:
    """A folder with a benchmark's official files.

    Args:
        source: expected files and where they come from; every error ends with it.
        unchecked: whether `picture` and `held_picture` leave the checks of pictures to `check`.

    Attributes:
        read: files that were read, without pictures.
        pictures: pictures that were found.

    Raises:
        ValueError: if the folder does not exist.
    """

    def __init__(self, path: Path | None, source: str, *, unchecked: bool = False) -> None:
        if path is None or not path.is_dir():
            raise ValueError(
                f"{'no data folder was given' if path is None else f'{path} is not a folder'}; expected {source}"
            )
        self.path, self.source = path, source
        self.read: list[Path] = []
        self.pictures: set[Path] = set()
        self.unchecked = unchecked

    def refusal(self, file: Path, problem: str) -> ValueError:
        """Return the error for a file with a problem."""
        return ValueError(f"{file} {problem}; expected {self.source}")

    def find(self, *names: str) -> Path:
        """Return the first of these files that exists.

        Raises:
            ValueError: if none exists.
        """
        file = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if file is None:
            raise self.refusal(self.path / names[0], "is missing")
        return file

    def json(self, *names: str) -> Any:
        """Return the content of the first of these JSON files that exists."""
        file = self.find(*names)
        self.read.append(file)
        try:
            return loads(file.read_text(encoding="utf-8-sig"), finite=False)
        except ValueError as error:
            raise self.refusal(file, f"is damaged ({error})") from error

    def parsed(self, file: Path, read: Callable[[Path], T]) -> T:
        """Return what `read` reads from a file; the source is added to its ValueError."""
        self.read.append(file)
        try:
            return read(file)
        except ValueError as error:
            raise ValueError(f"{error}; expected {self.source}") from error

    def tsv(self, file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the rows of a TSV file with a header, each with its number from 1.

        Raises:
            ValueError: if the file is damaged or truncated, or lacks one of the columns.
        """
        self.read.append(file)
        csv.field_size_limit(sys.maxsize)  # base64 pictures are long
        try:
            with file.open(encoding="utf-8-sig", newline="") as handle:
                rows = csv.DictReader(handle, delimiter="\t")
                lacking = [name for name in columns if name not in (rows.fieldnames or ())]
                if lacking:
                    raise self.refusal(file, f"is another version: it has no column {', '.join(lacking)}")
                for number, row in enumerate(rows, start=1):
                    if None in row or None in row.values():
                        raise self.refusal(
                            file, f"is damaged: row {number} does not have {len(rows.fieldnames or ())} columns"
                        )
                    yield number, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.refusal(file, f"is damaged ({error})") from error

    def parquet(self, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a parquet file.

        Raises:
            ValueError: if the file is damaged or lacks one of the columns, or if pyarrow is not installed.
        """
        require(str(file), "pyarrow")
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        self.read.append(file)
        try:
            with ParquetFile(file) as content:
                lacking = [name for name in columns if name not in content.schema_arrow.names]
                if lacking:
                    raise self.refusal(file, f"is another version: it has no column {', '.join(lacking)}")
                for batch in content.iter_batches(batch_size=64, columns=list(columns)):
                    yield from batch.to_pylist()
        except (ArrowException, OSError, UnicodeDecodeError) as error:  # UnicodeDecodeError: in a text column
            raise self.refusal(file, f"is damaged ({error})") from error

    def picture(self, *names: str) -> Path:
        """Return the path of a complete picture: the first of these files that exists.

        Raises:
            ValueError: if none exists or the picture is truncated; never if pictures are left unchecked.
        """
        if self.unchecked:
            places = [self.path / name for name in names]
            return next((place for place in places if place.is_file()), places[0])
        return self.check(self.find(*names))

    def check(self, file: Path) -> Path:
        """Return a picture's path after checking that the picture is complete.

        Raises:
            ValueError: if it is missing or truncated.
        """
        if not file.is_file():
            raise self.refusal(file, "is missing")
        if file not in self.pictures:
            with file.open("rb") as handle:
                start, size = handle.read(2), handle.seek(0, 2)
                handle.seek(max(0, size - 8))
                end = handle.read()
            if not _looks_whole(start, end):
                self._decode(file)
            self.pictures.add(file)
        return file

    def held_picture(self, content: bytes | str, where: str) -> bytes:
        """Return the bytes of a complete picture.

        Args:
            content: bytes or base64 text.
            where: picture and file, for the error message.

        Raises:
            ValueError: if it is truncated or not a picture; never if pictures are left unchecked.
        """
        try:
            found = base64.b64decode(content, validate=True) if isinstance(content, str) else content
        except ValueError as error:
            if self.unchecked:
                return b""
            raise ValueError(f"{where} is not base64 ({error}); expected {self.source}") from error
        if not self.unchecked:
            self.check_held(found, where)
        return found

    def check_held(self, picture: bytes, where: str) -> None:
        """Check that bytes are a complete picture.

        Raises:
            ValueError: if they are not; the message contains `where`.
        """
        if not _looks_whole(picture[:2], picture[-8:]):
            self._decode(picture, where)

    def _decode(self, picture: Path | bytes, where: str = "") -> None:
        try:
            load_image(picture)
        except ValueError as error:
            raise ValueError(f"{where}{': ' if where else ''}{error}; expected {self.source}") from error


class Questions(Benchmark):
    """Base class of benchmarks that ask questions from a folder of official files."""

    draws = False
    _folder: DataFolder | None = None

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return the means of the samples; a subclass defines `samples` or overrides this method."""
        if type(self).samples is Benchmark.samples:
            raise NotImplementedError(f"{type(self).__name__} defines neither scores nor samples")
        return {name: sample.whole * mean(sample.values) for name, sample in self.samples(rows).items()}

    def open_folder(self) -> DataFolder:
        """Open the folder that `items` reads.

        Raises:
            ValueError: if there is none.
        """
        self._folder = DataFolder(self.data, self.source, unchecked=self.limited)
        return self._folder

    def check_items(self, items: Sequence[Item]) -> None:
        super().check_items(items)
        assert self._folder is not None
        for item in items:
            for picture in item.images:
                if isinstance(picture, Path):
                    self._folder.check(picture)
                elif isinstance(picture, bytes):
                    self._folder.check_held(picture, f"the picture of {self.title}'s item {item.key}")

    def files(self) -> list[Path]:
        return [] if self._folder is None else list(self._folder.read)

    def pictures(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.pictures)

    @property
    def official(self) -> Path:
        """Folder that `write_official` writes to."""
        return self.out / "official"


def _looks_whole(start: bytes, end: bytes) -> bool:
    """Return whether the bytes start and end a JPEG or PNG; other files must be decoded."""
    return start in ENDS and end.endswith(ENDS[start])


def find_file(benchmark: Benchmark, *names: str) -> Path:
    """Return the first of these files that exists in a benchmark's folder.

    Raises:
        ValueError: if there is no folder, or none of the files in it.
    """
    if benchmark.data is None:
        raise ValueError(f"{benchmark.title} needs a folder with its files: {benchmark.source}")
    file = next((file for name in names if (file := benchmark.data / name).is_file()), None)
    if file is None:
        raise ValueError(f"{benchmark.data} has no {names[0]}; expected {benchmark.source}")
    return file


def read_text(file: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: if it is not UTF-8; the message names the file.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error})") from error


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)
