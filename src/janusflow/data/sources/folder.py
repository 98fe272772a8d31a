"""The kind `folder`: pictures with a `.txt` file for each, or with metadata files (`data/folders.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from janusflow.data.folders import other_splits, read_folder, visible_files
from janusflow.data.sources.files import FileConfig


@dataclass(frozen=True)
class FolderConfig(FileConfig):
    """A folder of pictures."""

    kind: Literal["folder"] = "folder"

    def check_place(self) -> None:
        if not self.place.is_dir():
            raise ValueError(f"{self.path} is not a folder")

    def files(self) -> Sequence[Path]:
        return [file for file in visible_files(self.place) if file.is_file()]

    def parts(self) -> Sequence[Path | str]:
        return ()

    def unread(self) -> str:
        return other_splits(self.place, self.split)

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        self.check_place()
        return read_folder(self.place, self.split), self.place
