"""The kind `replay`: pictures that the model generates before the run (`training/replay.py`) and trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from janusflow.data.constraints import PositiveInt
from janusflow.data.records import Record
from janusflow.data.reflow import Accept, read_prompts
from janusflow.data.sources.config import Source, SourceConfig
from janusflow.data.sources.registry import find_kind, kinds


@dataclass(frozen=True)
class ReplayConfig(SourceConfig):
    """Pictures generated for prompts.

    Attributes:
        path: a file of prompts; or the name of a kind of source that makes prompts, such as `tinyworld`, and judges
            their pictures: wrong ones are left out. (A file with such a name is given as `./tinyworld`.)
        images: total number of pictures.
        guidance: weight of the classifier-free guidance that they are generated with, at least 1.
        teacher: another model, whose pictures from the same noise are learned in place of the model's own.
        judge, min_score: `module:function` that scores a prompt and a picture; pictures below `min_score` are left
            out.
    """

    kind: Literal["replay"] = "replay"
    images: PositiveInt = 960
    guidance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    teacher: str = ""
    judge: str = ""
    min_score: Annotated[float, Field(allow_inf_nan=False)] = 0.5

    @property
    def prompt_source(self) -> SourceConfig | None:
        """The source that makes the prompts; None if a file contains them."""
        return find_kind(self.path)(self.path) if self.path in kinds() else None

    @property
    def image_size(self) -> int | None:
        return self.prompt_source.image_size if self.prompt_source else None

    def check(self, task: str, *, checkpoint: bool) -> None:
        super().check(task, checkpoint=checkpoint)
        if self.teacher and self.anchor:
            raise ValueError("an anchor keeps what the model says, so it takes no teacher; drop one")
        if task != "generation" or not checkpoint:
            raise ValueError("a replay is of pictures that model.checkpoint generates, for data.generation only")
        if not self.path:
            raise ValueError("a replay needs path, a file of prompts or a kind of source such as tinyworld")
        if self.prompt_source and self.prompt_source.replayed(0, 0) is None:
            raise ValueError(f"sources of {self.path} make no prompts; give a replay a file of prompts as path")
        if self.judge and self.prompt_source:
            raise ValueError(f"a replay of {self.path} is judged by {self.path} itself; leave judge out")

    def prompts(self, seed: int) -> tuple[list[str], Accept | None]:
        """Return a prompt for each picture, and the judge of their source.

        Raises:
            ValueError: if there are none.
        """
        made = self.prompt_source and self.prompt_source.replayed(seed, self.images)
        return made or (spread(read_prompts(Path(self.path).expanduser()), self.images), None)

    def open(self, task: str, seed: int, rank: int, ranks: int) -> Source:
        """Return the prompts with empty pictures, which have yet to be generated."""
        return _Ungenerated(self.prompts(seed)[0])


class _Ungenerated:
    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = prompts
        self.length: int | None = len(prompts)

    def record(self, index: int) -> Record:
        return Record(f"replay {index}", (Image.new("RGB", (64, 64)),), text=self.prompts[index])


def spread(prompts: list[str], count: int) -> list[str]:
    """Return `count` prompts: repeated if there are fewer, evenly spaced if there are more."""
    total = len(prompts)
    return [prompts[n % total if count > total else n * total // count] for n in range(count)]
