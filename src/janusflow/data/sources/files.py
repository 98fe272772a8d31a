"""Sources that are read from files: by index here, sequentially in `data/streams.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from janusflow.arguments import quoted
from janusflow.data.folders import visible_files
from janusflow.data.records import Record, read_row
from janusflow.data.sources.config import Source, SourceConfig
from janusflow.data.streams import StreamSource
from janusflow.progress import without_others


@dataclass(frozen=True)
class FileConfig(SourceConfig):
    """The settings of a source that is read from files.

    Attributes:
        split: split of a hub data set, or of a folder whose picture folders are named after splits (`data/folders.py`);
            "all" reads all of them.
        streaming: read sequentially without an index: nothing is copied, and the order is that of the files.
        fitting: leave out records that do not serve the task; by default they count as broken.
    """

    split: str = "train"
    streaming: bool = False
    fitting: bool = False
    suffixes: ClassVar[tuple[str, ...]] = ()  # suffixes of the kind's files, in lower case

    def check(self, task: str, *, checkpoint: bool) -> None:
        super().check(task, checkpoint=checkpoint)
        if not self.path:
            raise ValueError(f"a source of {quoted(self.kind)} needs a path")
        if self.fitting and self.streaming:
            raise ValueError("fitting rows are found before the run, so not in a stream; drop one")

    def check_place(self) -> None:
        self.files()

    def check_out(self, out: Path) -> None:
        data = self.place.resolve()
        target = out.expanduser().resolve()
        if data.is_dir() and data in (target, *target.parents):
            raise ValueError(f"{out} lies inside {self.path}, so its files would be read as data; give another folder")

    def files(self) -> Sequence[Path]:
        path = self.place
        if path.is_dir():
            found = [file for file in visible_files(path) if has_suffix(file, self.suffixes)]
        else:
            found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if not found:
            raise ValueError(f"{self.path} contains no {self.suffixes[0]} file")
        return found

    @property
    def place(self) -> Path:
        """The absolute path."""
        return Path(self.path).expanduser().absolute()

    def parts(self) -> Sequence[Path | str]:
        """Return the files or addresses that a stream reads one by one; none if it is read as a whole."""
        return self.files()

    def unread(self) -> str:
        """Describe which splits are not read; empty if everything is read."""
        return ""

    @without_others(reads_data=True)
    def rows(self, files: Sequence[Path] | None = None) -> tuple[Any, Path]:
        """Return the rows of the data set, or of some of its files, and the folder that their paths are relative to.

        A row may name another folder (`FOLDER`).

        Raises:
            ValueError: if they cannot be read.
        """
        return self.read(files)

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        """Read what `rows` returns; `rows` hides the bars of `datasets` meanwhile."""
        raise NotImplementedError

    def open(self, task: str, seed: int, rank: int, ranks: int) -> Source | StreamSource:
        return StreamSource(self, rank, ranks) if self.streaming else FileSource(self, task)


class FileSource:
    """A data set on disk, by index.

    Args:
        task: task that its records are for; needed if only fitting ones are wanted.

    Attributes:
        skipped: number of records that do not serve the task, if only fitting ones are wanted.
        unread: which splits of a folder are not read, in words; empty if everything is read.

    Raises:
        ValueError: if it cannot be opened, or if only fitting records are wanted and no readable one serves the task.
    """

    def __init__(self, config: FileConfig, task: str = "") -> None:
        self.rows, self.folder = config.rows()
        self.name, self.skipped = config.path, 0
        self.unread = config.unread()
        if config.fitting:
            whole = len(self.rows)
            served = [served_by(row, self.name, self.folder) for row in self.rows]
            if not any(task in tasks for tasks in served if tasks is not None):
                raise ValueError(f"{config.path} contains no readable record for {task}")
            self.rows = self.rows.select([i for i, tasks in enumerate(served) if tasks is None or task in tasks])
            self.skipped = whole - len(self.rows)
        self.length: int | None = len(self.rows)
        if not self.length:
            raise ValueError(f"{config.path} contains no records")

    def record(self, index: int) -> Record:
        return read_row(self.rows[index], f"{self.name}[{index}]", self.folder)


def served_by(row: Mapping[str, Any], name: str, folder: Path) -> set[str] | None:
    """Return the tasks that a row serves, or None for a malformed one."""
    try:
        record = read_row(row, name, folder)
    except ValueError:
        return None
    tasks = set()
    if record.turns or (record.images and record.text):
        tasks.add("understanding")
    if len(record.images) == 1 and record.text:
        tasks.add("generation")
    if record.text or (record.turns and not record.images):
        tasks.add("text")
    return tasks


def has_suffix(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file has one of these suffixes, in upper or lower case."""
    return file.name.lower().endswith(suffixes)
