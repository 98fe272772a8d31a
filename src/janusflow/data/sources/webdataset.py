"""The kind `webdataset`: tars in WebDataset's form (`data/tars.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from janusflow.data.sources.files import FileConfig
from janusflow.data.tars import Tars


@dataclass(frozen=True)
class WebdatasetConfig(FileConfig):
    """A `.tar` file, or a folder of them."""

    kind: Literal["webdataset"] = "webdataset"
    # compressed ones are included for error messages
    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        found = list(files or self.files())
        try:
            return Tars(found), found[0].parent
        except (OSError, ValueError) as error:
            several = f"none of the {len(found)} files of {self.path} can be read; the first"
            what = several if len(found) > 1 else f"{self.path} cannot be read as webdataset"
            raise ValueError(f"{what}: {error}") from error
