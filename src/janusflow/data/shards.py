"""The shards that `prepare.py` writes: WebDataset tars or Parquet files of captioned pictures and conversations."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from janusflow.data.records import IMAGE_TAG, LLAVA_TAG, Record
from janusflow.data.sources import FileSource, file_config
from janusflow.files import temporary_path
from janusflow.pipelines.sheet import contact_sheet
from janusflow.processing.images import load_image

SUFFIXES = {"webdataset": "tar", "parquet": "parquet"}
QUALITY = 92  # of the JPEGs
SHOWN, SHOWN_SIDE, LABEL = 16, 192, 120  # pictures on a sheet, their side in pixels, and characters below each


@dataclass(frozen=True)
class KeptRecord:
    """A record that passed.

    Attributes:
        number: number of the record.
        name: where it comes from.
        jpegs: its pictures as they are written; decoded, those of a shard would fill the memory.
        record: its text and turns.
        digest: digest by which copies of it are found.
        cropped: share of its picture's area that a square crop leaves out.
        copy: whether it is a copy of a picture of the same shard, to be kept only if that one gets no caption.
    """

    number: int
    name: str
    jpegs: tuple[bytes, ...]
    record: Record
    digest: str
    cropped: float
    copy: bool = False


def write_shard(out: Path, number: int, shard: list[KeptRecord], kind: str) -> None:
    """Write `shard-NNNNNN`, complete or not at all."""
    final = out / f"shard-{number:06d}.{SUFFIXES[kind]}"
    with temporary_path(final) as temporary:
        if kind == "webdataset":
            with tarfile.open(temporary, "w") as tar:
                for kept in shard:
                    for ending, data in _members(kept):
                        entry = tarfile.TarInfo(f"{kept.number:09d}.{ending}")
                        entry.size = len(data)
                        tar.addfile(entry, io.BytesIO(data))
        else:
            import datasets

            picture, text = datasets.Image(), datasets.Value("string")
            features = {"image": picture, "images": datasets.List(picture), "text": text, "conversations": text}
            rows = [_row(kept) for kept in shard]
            datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(str(temporary))
        temporary.replace(final)


def contact_sheet_of(out: Path, kind: str) -> Image.Image | None:
    """Make a contact sheet of evenly spaced pictures in a folder of shards, with their texts; None without pictures."""
    files = sorted(out.glob(f"shard-*.{SUFFIXES[kind]}"))
    files = [files[index] for index in _spaced(len(files), SHOWN)]
    pictures, labels = [], []
    for file in files:
        source = FileSource(file_config(kind, str(file)))
        for index in _spaced(source.length or 0, -(-SHOWN // len(files))):
            record = source.record(index)
            if record.images:
                side = (SHOWN_SIDE, SHOWN_SIDE)
                pictures.append(ImageOps.pad(load_image(record.images[0]), side, color="white"))
                labels.append(_label(record))
    return contact_sheet(pictures[:SHOWN], labels[:SHOWN]) if pictures else None


def jpeg(image: Image.Image) -> bytes:
    """Encode a picture as it is written."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _members(kept: KeptRecord) -> list[tuple[str, bytes]]:
    """Return the members of a sample in a tar, as endings and contents."""
    several = len(kept.jpegs) > 1
    members = [(f"{index}.jpg" if several else "jpg", data) for index, data in enumerate(kept.jpegs)]
    if kept.record.text:
        members.append(("txt", kept.record.text.encode()))
    if kept.record.turns:
        talk = {"conversations": _messages(kept.record)}
        members.append(("json", json.dumps(talk, ensure_ascii=False).encode()))
    return members


def _row(kept: KeptRecord) -> dict[str, Any]:
    """Return a sample as a row of a Parquet file."""
    pictures = [{"bytes": data, "path": None} for data in kept.jpegs]
    talk = json.dumps(_messages(kept.record), ensure_ascii=False) if kept.record.turns else None
    only = pictures[0] if len(pictures) == 1 else None
    return {"image": only, "images": None if only else pictures, "text": kept.record.text, "conversations": talk}


def _messages(record: Record) -> list[dict[str, str]]:
    """Return a conversation in LLaVA's form."""
    messages = [] if record.system is None else [{"from": "system", "value": record.system}]
    for question, answer in record.turns:
        asked = question.replace(IMAGE_TAG, LLAVA_TAG)
        messages += [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return messages


def _label(record: Record) -> str:
    text = record.text
    if record.turns:
        question, answer = record.turns[0]
        text = f"{question.replace(IMAGE_TAG, '').strip()} - {answer}"
    return text if len(text) <= LABEL else f"{text[:LABEL]}..."


def _spaced(length: int, count: int) -> list[int]:
    """Return at most `count` evenly spaced numbers below `length`."""
    count = min(length, count)
    return [index * length // count for index in range(count)]
