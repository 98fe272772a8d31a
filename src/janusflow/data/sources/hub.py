"""The kind `hub`: a data set on the Hugging Face hub, or a folder that `datasets` opens like one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from janusflow.data.sources.files import FileConfig
from janusflow.data.sources.tables import undecoded, unreadable
from janusflow.data.tars import Tars
from janusflow.offline import cached_if_unreachable, first_line


@dataclass(frozen=True)
class HubConfig(FileConfig):
    """A data set's id."""

    kind: Literal["hub"] = "hub"

    def files(self) -> Sequence[Path]:
        return ()

    def parts(self) -> Sequence[Path | str]:
        return remote_tars(self.path, self.split)

    def read(self, files: Sequence[Path] | None) -> tuple[Any, Path]:
        import datasets

        if tars := remote_tars(self.path, self.split):
            return Tars([Path(file) for file in datasets.DownloadManager().download(list(tars))]), Path()
        why = ""
        try:
            with cached_if_unreachable(self.path) as why:
                rows = datasets.load_dataset(self.path, split=self.split, streaming=self.streaming)
        except unreadable() as error:
            raise ValueError(f"{self.path} cannot be read as hub: {why or first_line(error)}") from error
        return undecoded(rows), Path()


@lru_cache(maxsize=8)
def remote_tars(path: str, split: str) -> tuple[str, ...]:
    """Return the addresses of a split's tars if a hub id is a data set in WebDataset's form; none if it is not.

    Raises:
        ValueError: if it cannot be read, or has no such split.
    """
    import datasets
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    why = ""
    try:
        with cached_if_unreachable(path) as why:
            builder = datasets.load_dataset_builder(path)
    except unreadable() as error:
        raise ValueError(f"{path} cannot be read as hub: {why or first_line(error)}") from error
    if not isinstance(builder, WebDataset):
        return ()
    splits = builder.config.data_files or {}
    if split not in splits:
        raise ValueError(f"{path} has no split {split!r}; its splits are {', '.join(map(str, splits))}")
    return tuple(str(file) for file in splits[split])
