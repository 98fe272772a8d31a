"""What all kinds of sources share: their settings, and the records that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from janusflow.data.constraints import NonNegativeFloat
from janusflow.data.records import Record
from janusflow.data.reflow import Accept
from janusflow.data.samples import Crop
from janusflow.data.streams import StreamSource


class Source(Protocol):
    """Records by index; `length` is None if there is no end."""

    length: int | None

    def record(self, index: int) -> Record:
        """Return the record at an index.

        Raises:
            ValueError: if it is malformed.
        """
        ...


@dataclass(frozen=True)
class SourceConfig:
    """The settings of a source of data. Each kind has a subclass with its own settings, registered under its name.

    A subclass defines `open`; pydantic constraints set the ranges of its settings.

    Attributes:
        kind: name of the kind, a key of `registry.kinds`.
        path: a file, a folder, a pattern, or a hub id.
        weight: how often it is sampled, relative to the other sources of its task.
        anchor: train on the model's own outputs for these samples from before the run, in place of their content, so
            that nothing they are about is forgotten (`training/anchor.py`).
        crop: how its pictures to generate become squares; `samples.crop` by default.
    """

    kind: str
    path: str = ""
    weight: NonNegativeFloat = 1.0
    anchor: bool = False
    crop: Crop | None = None
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the pictures that the source renders itself; None for pictures of any size."""
        return None

    def check(self, task: str, *, checkpoint: bool) -> None:
        """Check what constraints of single settings cannot express; no file is opened.

        Args:
            task: task of the source: understanding, generation or text.
            checkpoint: whether the run starts from a checkpoint.

        Raises:
            ValueError: for settings that cannot be combined.
        """
        if self.anchor and not checkpoint:
            raise ValueError("anchors keep what model.checkpoint can do, and none is given")

    def check_place(self) -> None:
        """Check quickly that the data is where `path` says.

        Raises:
            ValueError: if it is not.
        """

    def check_out(self, out: Path) -> None:
        """Check that files written to a folder do not become part of the data.

        Raises:
            ValueError: if the folder lies inside the data.
        """

    def files(self) -> Sequence[Path]:
        """Return the local files that the source reads; a resumed run notices when they have changed.

        Raises:
            ValueError: if there are none.
        """
        return ()

    def open(self, task: str, seed: int, rank: int, ranks: int) -> Source | StreamSource:
        """Open the source.

        Args:
            task: task that its records are for.
            seed: seed of everything random.
            rank, ranks: index of this process, and number of processes; a stream is divided among them.

        Raises:
            ValueError: if it cannot be read.
        """
        raise NotImplementedError

    def replayed(self, seed: int, count: int) -> tuple[list[str], Accept] | None:
        """Return prompts for what the source shows, and a judge of the pictures generated for them (`replay.py`).

        Returns:
            None for a kind that makes no prompts.
        """
        return None
