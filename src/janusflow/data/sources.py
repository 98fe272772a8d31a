"""Where training data comes from: every kind of source gives plain records.

`rows.py` opens files; their rows are read here by index and in `streams.py` one after the other. Pictures stay
undecoded in a record, so that a broken one costs its sample and not the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
from PIL import Image

from janusflow.data.jsonlines import FAULT, FOLDER
from janusflow.data.rows import PICTURES, SUFFIXES, SourceConfig, open_rows
from janusflow.generation import LARGEST_SEED
from janusflow.images import ImageSource
from janusflow.tinyworld.bold import bold_pair, ordered_pair, unnamed_pair
from janusflow.tinyworld.captions import KINDS, describe, sample_pair
from janusflow.tinyworld.composed import composed_pair
from janusflow.tinyworld.questions import sample_fact, sample_talk
from janusflow.tinyworld.scenes import render
from janusflow.tinyworld.spoiled import spoil

IMAGE_COLUMNS = ("image", "images", "jpg", "jpeg", "png", "webp", "img")
TEXT_COLUMNS = ("text", "caption", "prompt", "txt", "TEXT", "content")
TALK_COLUMNS = ("conversations", "messages")
REWRITTEN_COLUMN = "rewritten"
NOISE_COLUMN, STATE_COLUMN, TIME_COLUMN = "noise_seed", "reflow_noise", "reflow_time"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PICTURE_TASKS = ("understanding", "generation")
LLAVA_IMAGE = "<image>"
BROKEN = (ValueError, OSError, KeyError, TypeError, AttributeError)  # what a broken record or picture raises


@dataclass(frozen=True)
class Record:
    """What a source holds of one sample, before any template.

    Attributes:
        name: to find it again in a log.
        images: its pictures, undecoded where they come from files.
        text: a caption, a prompt or plain text; empty if there is none.
        turns: (user, assistant) messages; a `<image_placeholder>` in the first for each picture, or in none.
        noise_seed: of the noise that the picture is drawn from, where that is not left to chance (Reflow).
        noise: that noise itself, as the bytes of float16 values.
        time: t, where it is not left to chance.
        rewritten: the text in clearer words, or empty: an anchored record is learned to be drawn as these are
            (`training/anchor.py`).
    """

    name: str
    images: tuple[ImageSource, ...] = ()
    text: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    noise_seed: int | None = None
    noise: bytes | None = None
    time: float | None = None
    rewritten: str = ""


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

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, config: SourceConfig, task: str = "") -> None:
        self.rows, self.folder = open_rows(config)
        self.name, self.left_out = config.path, 0
        if config.fitting:
            whole = len(self.rows)
            rows = enumerate(self.rows)
            self.rows = self.rows.select([i for i, row in rows if task in served_by(row, self.name, self.folder)])
            self.left_out = whole - len(self.rows)
        self.length: int | None = len(self.rows)
        if not self.length:
            raise ValueError(f"{config.path} holds no records")

    def record(self, index: int) -> Record:
        return read_row(self.rows[index], f"{self.name}[{index}]", self.folder)


def kind_of(path: str, *, captions: bool = True) -> str:
    """The kind of source that a folder or file is: jsonl, folder, parquet or webdataset.

    Args:
        path: of the data.
        captions: without them a folder of pictures alone will do.

    Raises:
        ValueError: if it is none of them.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"{path} does not exist")
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in PICTURES}
    captions_beside = any(file.suffix == ".txt" and file.with_suffix("") in pictures for file in files)
    if place.is_dir() and (captions_beside or any(file.stem == "metadata" for file in files)):
        return "folder"
    if place.is_dir() and not captions and pictures:
        return "folder"
    if place.is_file() and place.suffix == ".json":
        return "jsonl"  # an array of the same rows
    for kind, pattern in SUFFIXES.items():
        if any(file.match(pattern) for file in files):
            return kind
    forms = "pictures with a .txt beside each, a metadata.jsonl, .jsonl, .parquet or .tar files"
    arrays = [file for file in files if file.suffix == ".json"]
    hint = f"; of {arrays[0].name} give the file itself" if arrays else ", or give one .json file"
    raise ValueError(f"{path} holds no data of a known form: {forms}{hint}")


@lru_cache(maxsize=8)
def tasks_of(kind: str, path: str) -> tuple[str, ...]:
    """The tasks that some record of a data set serves: understanding, generation.

    Raises:
        ValueError: if it cannot be read.
    """
    rows, folder = open_rows(SourceConfig(kind, path))
    found: set[str] = set()
    for row in rows:
        found |= served_by(row, path, folder)
        if len(found) == len(PICTURE_TASKS):
            break
    return tuple(task for task in PICTURE_TASKS if task in found)


def served_by(row: Mapping[str, Any], name: str, folder: Path) -> set[str]:
    """The tasks that a row serves; a malformed one serves all, so that it is told as broken."""
    try:
        record = read_row(row, name, folder)
    except ValueError:
        return set(PICTURE_TASKS)
    tasks = set()
    if record.images and (record.turns or record.text):
        tasks.add("understanding")
    if len(record.images) == 1 and record.text:
        tasks.add("generation")
    return tasks


def read_row(row: Mapping[str, Any], name: str, folder: Path) -> Record:
    """A row of any of the known forms as a record.

    Args:
        row: by column.
        name: of the record, for messages.
        folder: what relative paths start from, unless the row names its own (`FOLDER`).

    Raises:
        ValueError: if it could not be read, holds nothing that is known, or a malformed picture or conversation.
    """
    if row.get(FAULT):
        raise ValueError(row[FAULT])
    own = row.get(FOLDER)
    try:
        columns = {key: value for key, value in row.items() if key not in (FAULT, FOLDER)}
        return _record_of(columns, name, Path(own) if own else folder)
    except BROKEN as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(said if name in said else f"{name} is malformed: {said}") from error


def _record_of(row: Mapping[str, Any], name: str, folder: Path) -> Record:
    fields = dict(row)
    if isinstance(fields.get("json"), Mapping):  # WebDataset keeps a sample's metadata in a .json member
        fields = {**fields["json"], **fields}
    images = next((fields[key] for key in IMAGE_COLUMNS if fields.get(key) is not None), None)
    listed = images if isinstance(images, list) else [] if images is None else [images]
    talk = next((fields[key] for key in TALK_COLUMNS if fields.get(key)), None)
    if isinstance(talk, str):
        try:
            talk = json.loads(talk)
        except ValueError as error:
            raise ValueError(f"{name}: its conversation is {talk!r:.40}; expected a list of messages") from error
    text = next((fields[key] for key in TEXT_COLUMNS if isinstance(fields.get(key), str | bytes) and fields[key]), "")
    text = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    seed = fields.get(NOISE_COLUMN)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED):
        raise ValueError(f"{name} has {NOISE_COLUMN} {seed!r:.40}; expected a whole number from 0 to {LARGEST_SEED}")
    noise, time = fields.get(STATE_COLUMN), fields.get(TIME_COLUMN)
    if time is not None and not 0 <= time < 1:
        raise ValueError(f"{name} has {TIME_COLUMN} {time!r:.40}; expected a number from 0 to below 1")
    rewritten = fields.get(REWRITTEN_COLUMN) or ""
    if not isinstance(rewritten, str):
        raise ValueError(f"{name} has {REWRITTEN_COLUMN} {rewritten!r:.40}; expected the text in other words")
    turns = read_turns(talk or [], name)
    pictures = tuple(_picture(i, folder) for i in listed)
    record = Record(name, pictures, text.strip(), turns, seed, noise, time, rewritten.strip())
    if not record.text and not record.turns and not record.images:
        raise ValueError(
            f"{name} has no text, no conversation and no picture; its columns are {', '.join(map(str, row))}"
        )
    return record


def read_turns(messages: Sequence[Mapping[str, Any]], name: str) -> tuple[tuple[str, str], ...]:
    """(user, assistant) turns of a conversation in LLaVA's (`from`, `value`) or OpenAI's (`role`, `content`) form.

    Raises:
        ValueError: if user and assistant do not take turns.
    """
    plain = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f"{name} has a malformed message: {message!r:.80}")
        role = ROLES.get(str(message.get("from", message.get("role"))))
        content = message.get("value", message.get("content"))
        if role is None or not isinstance(content, str) or not content.strip():
            raise ValueError(f"{name} has a malformed message: {dict(message)!r:.80}")
        if role != "system":
            plain.append((role, content.replace(LLAVA_IMAGE, "<image_placeholder>").strip()))
    if len(plain) % 2 or any(role != ("user", "assistant")[i % 2] for i, (role, _) in enumerate(plain)):
        raise ValueError(f"{name}: user and assistant do not take turns")
    return tuple((plain[i][1], plain[i + 1][1]) for i in range(0, len(plain), 2))


def _picture(value: Any, folder: Path) -> ImageSource:
    if isinstance(value, Mapping):  # an undecoded Image feature
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, str) and not value.startswith("data:") and not Path(value).is_absolute():
        return folder / value
    if isinstance(value, str | bytes | Path | np.ndarray | Image.Image):
        return value
    raise ValueError(f"a picture is given as {type(value).__name__}")
