"""The kind `jsonl`: JSON lines, or one JSON array of the same rows (`data/jsonlines.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from janusflow.data.jsonlines import AS_LINES, JsonLines, is_array, is_lines, read_lines
from janusflow.data.sources.files import FileConfig
from janusflow.data.sources.tables import read_tables


@dataclass(frozen=True)
class JsonlConfig(FileConfig):
    """A `.jsonl` file, a folder of them, or a `.json` array."""

    kind: Literal["jsonl"] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        found = list(files or self.files())
        known = all(is_lines(file) or is_array(file) for file in found)
        return (self._lines(found) if known else read_tables("json", found, self, f"; {AS_LINES}")), found[0].parent

    def _lines(self, files: list[Path]) -> Any:
        if self.streaming:
            import datasets

            return datasets.IterableDataset.from_generator(read_lines, gen_kwargs={"files": files})
        try:
            return JsonLines(files)
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read as JSON: {error}") from error
