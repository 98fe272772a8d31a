"""Records, which every source gives: a row of any known form as pictures, a text and a conversation.

Pictures stay undecoded, so that a broken one loses only its record and does not stop the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janusflow.arguments import counted
from janusflow.data.jsonlines import FAULT, FOLDER, NAME
from janusflow.data.regions import REGIONS_COLUMN, Region, read_regions
from janusflow.engine.generation import LARGEST_SEED
from janusflow.processing.images import ImageSource
from janusflow.processing.messages import flatten

IMAGE_COLUMNS = ("image", "images", "jpg", "jpeg", "png", "webp", "img")
TEXT_COLUMNS = ("text", "caption", "prompt", "txt", "TEXT", "content")
TALK_COLUMNS = ("conversations", "messages")
NOISE_COLUMN, STATE_COLUMN, TIME_COLUMN = "noise_seed", "reflow_noise", "reflow_time"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
IMAGE_TAG, LLAVA_TAG = "<image_placeholder>", "<image>"
BROKEN = (ValueError, OSError, KeyError, TypeError, AttributeError)  # what a broken record or picture raises
UNASKED = "conversation begins with an assistant turn; that turn was dropped"
UNANSWERED = "conversation ends with a user turn; that turn was dropped"


class MalformedError(ValueError):
    """A row that is not a record."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, name)
        self.text, self.name = text, name

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Record:
    """The content of one sample in a source, before any template.

    Attributes:
        name: name in logs, by which the record can be found.
        images: pictures in reading order, undecoded if they come from files.
        text: a caption, a prompt or plain text; empty if there is none.
        turns: (user, assistant) messages; the user's have an `<image_placeholder>` for each picture, or none at all.
        system: system prompt of the conversation; None for the model's own.
        noise_seed: seed of the noise that the picture is generated from, if that is not random (Reflow).
        noise: the noise itself, as the bytes of float16 values.
        time: t, if it is not random.
        note: what was left out of the row, and why; empty if nothing was.
        regions: boxes of the picture with texts of their own.
    """

    name: str
    images: tuple[ImageSource, ...] = ()
    text: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    noise_seed: int | None = None
    noise: bytes | None = None
    time: float | None = None
    system: str | None = None
    note: str = ""
    regions: tuple[Region, ...] = ()


def read_row(row: Mapping[str, Any], name: str, folder: Path) -> Record:
    """Convert a row of any known form into a record.

    Args:
        name: name of the record in messages, unless the row has its own (`NAME`).
        folder: folder that relative paths start from, unless the row has its own (`FOLDER`).

    Raises:
        MalformedError: if the row could not be read, contains nothing known, or a malformed picture or conversation.
    """
    own, name = row.get(FOLDER), row.get(NAME) or name
    if row.get(FAULT):
        raise MalformedError(row[FAULT], name)
    try:
        columns = {key: value for key, value in row.items() if key not in (FAULT, FOLDER, NAME)}
        record = _record_of(columns, name, Path(own) if own else folder)
        texts = [record.text, record.system or "", *(text for turn in record.turns for text in turn)]
        texts += [region.text for region in record.regions]
        "".join(texts).encode()  # rejects lone surrogates, which JSON can contain ("\ud800") and no tokenizer accepts
        return record
    except BROKEN as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise MalformedError(said if name in said else f"{name} is malformed: {said}", name) from error


def _record_of(row: Mapping[str, Any], name: str, folder: Path) -> Record:
    fields = dict(row)
    if isinstance(fields.get("json"), Mapping):  # metadata as WebDataset names it
        fields = {**fields["json"], **fields}
    images = next((fields[key] for key in IMAGE_COLUMNS if _given(fields.get(key))), None)
    pictures = tuple(_picture(image, folder) for image in _listed(images))
    seed = fields.get(NOISE_COLUMN)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED):
        raise ValueError(f"{name} has {NOISE_COLUMN} {seed!r:.40}; expected a whole number from 0 to {LARGEST_SEED}")
    noise, time = fields.get(STATE_COLUMN), fields.get(TIME_COLUMN)
    if time is not None and not 0 <= time < 1:
        raise ValueError(f"{name} has {TIME_COLUMN} {time!r:.40}; expected a number from 0 to below 1")
    regions = read_regions(fields.get(REGIONS_COLUMN), name)
    record = Record(name, pictures, _text(fields), (), seed, noise, time, regions=regions)
    talk = next((fields[key] for key in TALK_COLUMNS if fields.get(key)), None)
    if talk is not None:
        record = _with_talk(record, _messages(talk, name), folder)
    if not record.text and not record.turns and not record.images:
        raise ValueError(
            f"{name} has no text, no conversation and no picture; its columns are {', '.join(map(str, row))}"
        )
    return record


def _text(fields: Mapping[str, Any]) -> str:
    """Return the first column that contains a text; a number counts as text."""
    for key in TEXT_COLUMNS:
        value = fields.get(key)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            value = str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _messages(talk: Any, name: str) -> Sequence[Any]:
    if not isinstance(talk, str):
        return list(talk)
    try:
        found = json.loads(talk)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its conversation is {talk!r:.40}; expected a list of messages") from error
    if not isinstance(found, list):
        raise ValueError(f"{name}: its conversation is {talk!r:.40}; expected a list of messages")
    return found


def _with_talk(record: Record, messages: Sequence[Any], folder: Path) -> Record:
    """Add to a record the turns of a conversation, in LLaVA's (`from`, `value`) or OpenAI's form (`role`, `content`).

    OpenAI's content is a string or parts. The pictures come in reading order: those of the messages and, where a
    message has only the tag of one, the record's. A first assistant turn and a last user turn, which teach nothing, are
    left out and noted.
    """
    name, left = record.name, list(record.images)
    plain = [_plain(message, name) for message in messages]
    system = plain.pop(0)[1] if plain and plain[0][0] == "system" else None
    if any(role == "system" for role, _, _ in plain):
        raise ValueError(f"{name}: a system message stands at the start of a conversation")
    own = [[one if one is None else _picture(one, folder) for one in shown] for _, _, shown in plain]
    tags = sum(one is None for shown in own for one in shown)
    if tags != len(left):  # the row may also list what its messages show
        shown_there = {key for shown in own for one in shown if (key := _key(one)) is not None}
        left = [one for one in left if _key(one) not in shown_there]
    if tags and tags != len(left):
        raise ValueError(f"{name} has {counted(tags, 'image tag')} for its {counted(len(left), 'picture')}")
    pictures = [[left.pop(0) if one is None else one for one in shown] for shown in own]
    texts, notes = [(role, content) for role, content, _ in plain], []
    while texts and texts[0][0] == "assistant":
        texts.pop(0)
        left = [*pictures.pop(0), *left]  # later turns are about what it showed
        notes.append(UNASKED)
    if texts and texts[-1][0] == "user":
        texts.pop()
        pictures.pop()
        notes.append(UNANSWERED)
    if len(texts) % 2 or any(role != ("user", "assistant")[i % 2] for i, (role, _) in enumerate(texts)):
        raise ValueError(f"{name}: user and assistant do not take turns")
    if not texts:
        raise ValueError(f"{name}: its conversation contains no question with an answer")
    if any(pictures[1::2]) or any(IMAGE_TAG in content for _, content in texts[1::2]):
        raise ValueError(f"{name} shows a picture in an answer; pictures stand in the user's turns")
    if left and any(pictures):
        texts[0] = ("user", f"{IMAGE_TAG}\n" * len(left) + texts[0][1])
    turns = tuple((texts[i][1], texts[i + 1][1]) for i in range(0, len(texts), 2))
    shown = (*left, *(picture for found in pictures for picture in found))
    return replace(record, images=shown, turns=turns, system=system, note="; ".join(dict.fromkeys(notes)))


def _plain(message: Any, name: str) -> tuple[str, str, list[Any]]:
    """Return role, text and pictures of a message; a picture is None if the message has only its tag."""
    malformed = f"{name} has a malformed message: {message!r:.80}"
    if not isinstance(message, Mapping):
        raise ValueError(malformed)
    speaker = message["from"] if message.get("from") is not None else message.get("role")
    role = ROLES.get(str(speaker).lower())
    content = message["value"] if message.get("value") is not None else message.get("content")
    if role is None:
        raise ValueError(malformed)
    if isinstance(content, str):
        content = content.replace(LLAVA_TAG, IMAGE_TAG)
    try:
        plain = {"role": role, "content": content, "images": message.get("images")}
        flat = flatten(plain, IMAGE_TAG, pictures_elsewhere=True)  # in the row's column
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{malformed}: {error}") from error
    text, own = flat["content"].strip(), flat["images"]
    tags = text.count(IMAGE_TAG)
    if own and not tags:
        text, tags = f"{IMAGE_TAG}\n" * len(own) + text, len(own)
    if not (text.strip() or role == "system") or (own and tags != len(own)):
        raise ValueError(malformed)
    return role, text, list(own) or [None] * tags


def _key(picture: ImageSource | None) -> str | bytes | None:
    """Return a key that is the same for two mentions of one picture; None if that cannot be determined."""
    return str(picture) if isinstance(picture, str | Path) else picture if isinstance(picture, bytes) else None


def _given(value: Any) -> bool:
    """Return whether a column contains anything; an empty path is not a picture."""
    if isinstance(value, Mapping):
        return not value.keys() & {"bytes", "path"} or bool(value.get("bytes") or value.get("path"))
    return value is not None and not (isinstance(value, str | bytes | list | tuple) and len(value) == 0)


def _listed(images: Any) -> list[Any]:
    return [one for one in (images if isinstance(images, list | tuple) else [images]) if _given(one)]


def _picture(value: Any, folder: Path) -> ImageSource:
    if isinstance(value, Mapping):  # an undecoded Image feature
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, str) and not value.startswith("data:") and not Path(value).is_absolute():
        return folder / value
    if isinstance(value, str | bytes | Path | np.ndarray | Image.Image):
        return value
    raise ValueError(f"a picture is given as {type(value).__name__}")
