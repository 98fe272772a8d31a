"""Files of rendered pictures: Parquet shards that training reads, and a Feather file of held-out pictures.

The held-out pictures are not in a Parquet file, so that `data=FOLDER` never trains on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.files import temporary_path
from janusflow.pictograms.captions import style_words
from janusflow.pictograms.phrases import noun, synonyms
from janusflow.pictograms.pictures import Picture
from janusflow.pictograms.questions import Turn
from janusflow.pictograms.render import Rendered, encoded, render

HELD_OUT = "held_out.feather"
DICTIONARY = 32 * 2**20  # bytes of different pictures in a shard; the same picture is stored once
SKIPPED = b"skipped"  # key in a file's metadata for pictures that were left out, and why
TWIN = "the same picture as one held out"
TEXTS = (
    *("text", "conversations", "id", "source", "style", "style_words", "family", "subject", "label", "group"),
    *("subgroup", "gender", "role", "color", "shape", "weight", "background", "held_out"),
)
LISTS = ("captions", "synonyms", "keywords", "tones")


@dataclass(frozen=True)
class Row:
    """One row of a data set before rendering.

    Attributes:
        picture: what is rendered.
        variant: number of the row among those of its picture.
        background: key of `BACKGROUNDS`.
        text: the caption that is trained on.
        captions: all wordings.
        talk: the conversation.
        held_out: the kind of combination that is held out, or "".
    """

    picture: Picture
    variant: int
    background: str
    text: str
    captions: tuple[str, ...]
    talk: Sequence[Turn]
    held_out: str = ""

    def columns(self) -> dict[str, Any]:
        """Return the row without its picture, by column: `TEXTS`, `LISTS` and `variant`."""
        picture, subject = self.picture, self.picture.subject
        messages = []
        for number, (question, answer) in enumerate(self.talk):
            tag = "" if number else "<image>\n"
            messages += [{"from": "human", "value": tag + question}, {"from": "gpt", "value": answer}]
        return {
            "text": self.text,
            "conversations": json.dumps(messages, ensure_ascii=False),
            "id": picture.id,
            "source": picture.source,
            "style": picture.style.name,
            "style_words": style_words(picture),
            "family": picture.style.family,
            "subject": subject.id,
            "label": noun(subject),
            "group": subject.group,
            "subgroup": subject.subgroup,
            "gender": subject.gender,
            "role": subject.role,
            "color": picture.tint or subject.color,
            "shape": subject.shape,
            "weight": picture.weight,
            "background": self.background,
            "held_out": self.held_out,
            "captions": list(self.captions),
            "synonyms": synonyms(subject),
            "keywords": list(subject.keywords),
            "tones": list(subject.tones),
            "variant": self.variant,
        }


@dataclass(frozen=True)
class Shard:
    """Rendered rows.

    Attributes:
        rows: rows as dictionaries by column, each with `image`, the bytes of a file.
        skipped: why rows of a picture are missing, by picture id.
    """

    rows: list[dict[str, Any]]
    skipped: dict[str, str]


def digests_of(pictures: Iterable[Picture], size: int) -> frozenset[bytes]:
    """Return digests of rendered pictures: equal for equal pictures, and none for what cannot be rendered."""
    found = set()
    for picture in pictures:
        with suppress(ValueError, OSError):
            found.add(_digest(render(picture.drawing.art, size, tint=picture.tint)))
    return frozenset(found)


def made_of(rows: Sequence[Row], size: int, hidden: frozenset[bytes] = frozenset()) -> Shard:
    """Render rows; render each picture only once, and put it on each background only once.

    Args:
        rows: see `Row`.
        size: side of the pictures in pixels.
        hidden: digests of pictures that are left out. Icon sets use one drawing for several subjects ("man astronaut"
            and "woman astronaut"): if one of them is held out, training must not see the others.
    """
    order: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        order.setdefault(row.picture.id, []).append(number)
    made: dict[int, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name, numbers in order.items():
        picture = rows[numbers[0]].picture
        try:
            rendered = render(picture.drawing.art, size, tint=picture.tint)
        except (ValueError, OSError) as error:
            skipped[name] = str(error)
            continue
        if hidden and _digest(rendered) in hidden:
            skipped[name] = TWIN
            continue
        grounds = {rows[number].background for number in numbers}
        files = {ground: encoded(rendered.on(ground)) for ground in sorted(grounds)}
        for number in numbers:
            made[number] = {"image": files[rows[number].background], **rows[number].columns()}
    return Shard([made[number] for number in sorted(made)], skipped)


def write_shard(file: Path, shard: Shard) -> None:
    """Write a shard atomically: Feather for `held_out.feather`, otherwise Parquet."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    fields = [("image", image), *((name, pa.string()) for name in TEXTS)]
    fields += [*((name, pa.list_(pa.string())) for name in LISTS), ("variant", pa.int64())]
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in shard.rows]
    metadata = {b"huggingface": json.dumps(_features()).encode(), SKIPPED: json.dumps(shard.skipped).encode()}
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields, metadata=metadata))
    with temporary_path(file, tidy=False) as temporary:
        if file.suffix == ".feather":
            feather.write_feather(table, str(temporary), compression="zstd")
        else:
            parquet.write_table(table, str(temporary), compression="zstd", dictionary_pagesize_limit=DICTIONARY)
        temporary.replace(file)


def _digest(rendered: Rendered) -> bytes:
    return hashlib.sha256(rendered.on("white").tobytes()).digest()


def _features() -> dict[str, Any]:
    """Return the columns as Hugging Face's `datasets` describes them, so that `image` opens as a picture."""
    text = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {"image": {"_type": "Image"}, **dict.fromkeys(TEXTS, text)}
    features |= {name: {"feature": text, "_type": "List"} for name in LISTS}
    return {"info": {"features": features | {"variant": {"dtype": "int64", "_type": "Value"}}}}


def read_table(file: Path, columns: Sequence[str] | None = None) -> Any:
    """Read a file of rows as a pyarrow table.

    Args:
        file: file written by `write_shard`.
        columns: columns to read.
    """
    from pyarrow import feather, parquet

    names = None if columns is None else list(columns)
    if file.suffix == ".feather":
        return feather.read_table(str(file), columns=names)
    return parquet.read_table(str(file), columns=names)


def skipped_in(file: Path) -> dict[str, str]:
    """Return why pictures are missing from a file (not rendered, or held out under another name), by id."""
    found: dict[str, str] = json.loads((read_table(file, ["id"]).schema.metadata or {}).get(SKIPPED, b"{}"))
    return found


def files_of(out: Path) -> tuple[list[Path], Path]:
    """Return the shards of a data set, and the file of held-out pictures."""
    return sorted(out.glob("shard-*.parquet")), out / HELD_OUT
