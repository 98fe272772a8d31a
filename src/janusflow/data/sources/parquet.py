"""The kind `parquet`: Parquet files, read by Hugging Face `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from janusflow.data.sources.files import FileConfig
from janusflow.data.sources.tables import read_tables


@dataclass(frozen=True)
class ParquetConfig(FileConfig):
    """A `.parquet` file, or a folder of them."""

    kind: Literal["parquet"] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        found = list(files or self.files())
        rows = read_tables("parquet", found, self)
        if self.streaming and hasattr(rows, "reshard"):  # older versions of `datasets` lack it
            rows = rows.reshard()  # by row groups: otherwise, how much comes before a corrupt one is left to chance
        return rows, found[0].parent
