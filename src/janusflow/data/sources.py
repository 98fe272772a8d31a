"""Where training data comes from: every kind of source gives plain records.

`rows.py` opens files; their rows are read here by index and in `streams.py` one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

from PIL import Image

from janusflow.data.folders import METADATA, PICTURES, is_folder_of_pictures, other_splits, visible_files
from janusflow.data.jsonlines import is_array
from janusflow.data.prepared import DROPPED
from janusflow.data.records import Record, read_row
from janusflow.data.rows import SUFFIXES, SourceConfig, has_suffix, open_rows
from janusflow.tinyworld.bold import bold_pair, ordered_pair, unnamed_pair
from janusflow.tinyworld.captions import KINDS, describe, sample_pair
from janusflow.tinyworld.composed import composed_pair
from janusflow.tinyworld.questions import sample_fact, sample_talk
from janusflow.tinyworld.scenes import render
from janusflow.tinyworld.spoiled import spoil

PICTURE_TASKS = ("understanding", "generation")


class Source(Protocol):
    """Records by number. `length` is None where there is no end."""

    length: int | None

    def record(self, index: int) -> Record:
        """The record with a number.

        Raises:
            ValueError: if it is malformed.
        """
        ...


class TinyworldSource:
    """Endless scenes of the tiny world: record n is a function of (seed, task, n).

    Args:
        task: understanding (talks), generation (captions), or text (facts, captions, questions about descriptions).
        shares: of the kinds of scenes.
        seed: another one gives another world.
        questions, described, bold, ordered, unnamed, composed, spoiled: see `SourceConfig`.
    """

    length: int | None = None

    def __init__(
        self,
        task: str,
        shares: Mapping[str, float],
        seed: int,
        *,
        questions: int = 4,
        described: float = 0.0,
        bold: float = 0.0,
        ordered: float = 0.0,
        unnamed: float = 0.0,
        composed: float = 0.0,
        spoiled: float = 0.0,
    ) -> None:
        self.task, self.seed, self.questions, self.described, self.bold = task, seed, questions, described, bold
        self.ordered, self.unnamed, self.composed, self.spoiled = ordered, unnamed, composed, spoiled
        self.shares = dict(shares) or dict.fromkeys(KINDS, 1.0)

    def record(self, index: int) -> Record:
        rng = Random(f"{self.task}/{self.seed}/{index}")
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        name = f"tinyworld {self.task} {index}"
        if self.task == "text" and rng.random() < 0.1:
            facts = tuple((fact.text, fact.answer) for fact in (sample_fact(rng) for _ in range(3)))
            return Record(name, turns=facts)
        if self.ordered and rng.random() < self.ordered:
            text, rewritten, scene = ordered_pair(rng)
            return Record(name, (Image.fromarray(render(scene)),), text=text, rewritten=rewritten)
        if self.unnamed and rng.random() < self.unnamed:
            text, rewritten, scene = unnamed_pair(rng)
            return Record(name, (Image.fromarray(render(scene)),), text=text, rewritten=rewritten)
        if self.composed and rng.random() < self.composed:
            task, scene = composed_pair(rng, kind)
            return Record(name, (Image.fromarray(render(scene)),), text=task.prompt)
        bold = self.bold and rng.random() < self.bold
        task, scene = (bold_pair if bold else sample_pair)(rng, kind)
        if self.task == "generation":
            text = describe(scene) if rng.random() < self.described else task.prompt
            return Record(name, (Image.fromarray(render(scene)),), text=text)
        if self.task == "text" and rng.random() < 0.1:
            return Record(name, text=task.prompt)
        turns = rng.randint(max(self.questions // 2, 1), self.questions)
        talk = [(spelled(rng, q.text), q.answer) for q in sample_talk(rng, scene, turns)]
        if self.task == "understanding":
            seen = render(scene)
            if self.spoiled and rng.random() < self.spoiled:
                seen = spoil(rng, seen)
            return Record(name, (Image.fromarray(seen),), turns=tuple(talk))
        (first, answer), *rest = talk
        return Record(name, turns=((f"{describe(scene)}\n{first}", answer), *rest))


def spelled(rng: Random, question: str) -> str:
    """A question in one of the spellings that people use."""
    if rng.random() < 0.3:
        question = question.replace("color", "colour")
    return question[0].upper() + question[1:] if rng.random() < 0.3 else question


class FileSource:
    """A data set on disk, by index.

    Args:
        config: where it is.
        task: what its records are for; needed where only fitting ones are wanted.

    Attributes:
        skipped: number of records that do not serve the task, where only fitting ones are wanted.
        unread: which splits of a folder are not read, in words; empty if all of it is.

    Raises:
        ValueError: if it cannot be opened, or no readable record serves the task where only fitting ones are wanted.
    """

    def __init__(self, config: SourceConfig, task: str = "") -> None:
        self.rows, self.folder = open_rows(config)
        self.name, self.skipped = config.path, 0
        self.unread = other_splits(self.folder, config.split) if config.kind == "folder" else ""
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


def kind_of(path: str, *, captions: bool = True) -> str:
    """The kind of source that a folder or file is: jsonl, folder, parquet or webdataset.

    Args:
        path: of the data.
        captions: without them a folder of pictures alone will do.

    Raises:
        ValueError: if it is none of them, or pictures without captions next to a file of records.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"{path} does not exist")
    files = [place] if place.is_file() else visible_files(place)
    if place.is_dir() and is_folder_of_pictures(place):
        return "folder"
    if place.is_dir() and not captions and any(file.suffix.lower() in PICTURES for file in files):
        talks = [file for file in files if is_array(file) or (has_suffix(file, "jsonl") and file.name != DROPPED)]
        if talks:
            only = "for the pictures without it, give --kind folder"
            raise ValueError(f"{path} also contains {talks[0].relative_to(place)}; to read it, give {talks[0]}; {only}")
        return "folder"
    if place.is_file() and place.suffix.lower() == ".json":
        return "jsonl"  # an array of the same rows
    for kind in SUFFIXES:
        if any(has_suffix(file, kind) for file in files):
            return kind
    forms = f"pictures with a .txt file for each, {', '.join(METADATA)}, or .jsonl, .parquet or .tar files"
    arrays = [file for file in files if file.suffix.lower() == ".json"]
    hint = f"; to read {arrays[0].name}, give {arrays[0]}" if arrays else "; a .json array is given as a file"
    raise ValueError(f"{path} contains no data of a known form: {forms}{hint}")


@lru_cache(maxsize=8)
def tasks_of(kind: str, path: str) -> tuple[str, ...]:
    """The tasks that some readable record of a data set serves: understanding, generation.

    Raises:
        ValueError: if it cannot be read.
    """
    rows, folder = open_rows(SourceConfig(kind, path))
    found: set[str] = set()
    for row in rows:
        found |= served_by(row, path, folder) or set()
        if len(found) == len(PICTURE_TASKS):
            break
    return tuple(task for task in PICTURE_TASKS if task in found)


@lru_cache(maxsize=8)
def size_of(kind: str, path: str) -> int:
    """How many rows a data set has.

    Raises:
        ValueError: if it cannot be read.
    """
    return len(open_rows(SourceConfig(kind, path))[0])


def served_by(row: Mapping[str, Any], name: str, folder: Path) -> set[str] | None:
    """The tasks that a row serves, or None for a malformed one."""
    try:
        record = read_row(row, name, folder)
    except ValueError:
        return None
    tasks = set()
    if record.turns or (record.images and record.text):
        tasks.add("understanding")
    if len(record.images) == 1 and record.text:
        tasks.add("generation")
    return tasks
