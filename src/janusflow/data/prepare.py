"""Prepare data as the paper did before training: filter and recaption pictures, drop duplicates, write shards, report.

Conversations pass through with their pictures. `dropped.jsonl` lists everything that is dropped, with its reason.
Records are read one after the other, and the state is saved after every shard, so that a killed run continues with the
same command and gives the same result.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from janusflow.arguments import check_fields
from janusflow.data.constraints import PositiveInt, Seed, Share
from janusflow.data.duplicates import Copies, digest_of
from janusflow.data.folders import unused_files
from janusflow.data.prepared import (
    DUPLICATE,
    LOCK,
    SHEET,
    STATE,
    Drops,
    KeptDigests,
    State,
    continued,
    save_state,
    write_report,
)
from janusflow.data.records import BROKEN, MalformedError, Record
from janusflow.data.shards import KeptRecord, contact_sheet_of, jpeg, write_shard
from janusflow.data.sources import FileConfig, FileSource
from janusflow.data.streams import EmptyStreamError, LostRowsError, StreamSource
from janusflow.files import locked
from janusflow.processing.images import ImageSource, load_image
from janusflow.progress import progress_bar
from janusflow.reasoning import final_answer

Captioner = Callable[[list[Image.Image]], list[str]]
Scorer = Callable[[Image.Image], float]
SENTENCE = re.compile(r"(?<=[.!?])\s+")
NAMED = 3  # number of broken records that warnings name during a run
NO_CAPTION = "no caption"
NONE = ("", "")  # no reason


@dataclass(frozen=True)
class PrepareConfig:
    """What to keep and how to write it.

    Attributes:
        min_side: minimum of the shorter side, in pixels.
        max_aspect: maximum ratio of the longer side to the shorter.
        min_score: minimum score, if a scorer is given.
        short_share: share of the captions that are cut to their first sentence.
        format: webdataset or parquet.
        shard_size: records per shard.
        batch_size: pictures captioned at once.
        seed: decides which captions are cut.
    """

    min_side: PositiveInt = 256
    max_aspect: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    min_score: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    short_share: Share = 0.25
    format: Literal["webdataset", "parquet"] = "webdataset"
    shard_size: PositiveInt = 1000
    batch_size: PositiveInt = 16
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


def prepare(
    source: FileConfig,
    out: Path,
    config: PrepareConfig,
    *,
    captioner: Captioner | None = None,
    scorer: Scorer | None = None,
    names: Mapping[str, str | None] | None = None,
) -> State:
    """Read a source, and write what is kept to a folder.

    The folder gets `shard-NNNNNN` files, `report.json`, `report.md`, `dropped.jsonl` (what was dropped, and why) and
    `sheet.jpg` (some of what was kept).

    Args:
        source: pictures with conversations, which are kept as they are, or with captions if no captioner is given.
        out: the folder; a run that was stopped there continues.
        scorer: function that returns a picture's score, for `min_score`.
        names: description of captioner and scorer (model, question, ...); a run with another one cannot be continued.

    Returns:
        The final state: what was kept and what was dropped, and why.

    Raises:
        ValueError: if the source cannot be read or contains no records, `out` contains a run with other settings, other
            shards or files of the source, or another process is writing into it.
    """
    given = {"captioner": captioner is not None, "scorer": scorer is not None}
    place = {name: value for name, value in asdict(source).items() if name != "crop"}  # pictures stay whole here
    records = StreamSource(source, 0, 1) if source.streaming else FileSource(source)
    total = None if isinstance(records, StreamSource) else records.length
    settings = {**asdict(config), "source": place, **given, **(names or {})}
    unread = source.unread()
    source.check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, f"another process is writing into {out}; wait for it, or give another --out"):
        state = continued(out, settings if total is None else {**settings, "records": total}, source.files())
        _run(records, state, source, out, config, captioner, scorer)
        write_report(out, state, unread)
        if sheet := contact_sheet_of(out, config.format):
            sheet.save(out / SHEET, quality=90)
    return state


def _run(
    records: StreamSource | FileSource,
    state: State,
    source: FileConfig,
    out: Path,
    config: PrepareConfig,
    captioner: Captioner | None,
    scorer: Scorer | None,
) -> None:
    """Read the records that a state has not read yet, and write their shards and the state."""
    if isinstance(records, StreamSource) and state.stream:
        records.restore(state.stream)
    drops = Drops(out, state)
    if source.kind == "folder" and not state.next:
        for file, reason in unused_files(source.place, source.split):
            if out.absolute() not in file.parents:
                drops.add(str(file), reason)
    copies = KeptDigests(out, state)
    total = None if isinstance(records, StreamSource) else records.length
    with progress_bar("preparing", total, done=state.next) as advance:
        while not state.finished:
            captioned = captioner is not None
            passed = list(_shard(records, state, copies, config, scorer, advance, drops, captioned=captioned))
            shard = _kept(passed, state, copies, config, captioner, drops)
            if shard:
                if not (out / STATE).is_file():  # a shard without a state would not be known as this run's own
                    save_state(out, State(config=state.config))
                write_shard(out, state.shards, shard, config.format)
                state.shards += 1
            if isinstance(records, StreamSource):
                state.stream = records.state()
            drops.write()
            copies.write()
            save_state(out, state)


def _shard(
    records: StreamSource | FileSource,
    state: State,
    copies: KeptDigests,
    config: PrepareConfig,
    scorer: Scorer | None,
    advance: Callable[[], None],
    drops: Drops,
    *,
    captioned: bool,
) -> Iterator[KeptRecord]:
    """Yield records that pass, until a shard is full or none are left; drop those that have no caption and get none.

    With a captioner, copies within the shard pass too and do not count, because what they copy may get no caption.
    """
    full, copied, own = 0, 0, Copies()
    while full < config.shard_size:
        number, lost, copy = state.next, 1, False
        name = f"record {number}"
        try:
            if isinstance(records, StreamSource):
                record = records.take()
            else:
                record = records.record(number) if number < len(records.rows) else None
            if record is None:
                state.finished = True
                return
            name = _place(record)
            images = [load_image(image) for image in _pictures(record)]
        except EmptyStreamError:
            raise
        except BROKEN as error:
            name = error.name if isinstance(error, MalformedError) else name
            reason, detail = "broken or malformed", str(error) or type(error).__name__
            lost = error.rows if isinstance(error, LostRowsError) else 1
            if state.counts[reason] < NAMED:
                warnings.warn(f"left out: {detail}", stacklevel=2)
        else:
            digest = digest_of(record, images)
            faults = [_fault(image, config, scorer) for image in images]
            reason, detail = next((fault for fault in faults if fault != NONE), NONE)
            if not reason and not captioned and not record.text and not record.turns:
                reason = NO_CAPTION
            elif not reason and digest in copies:
                copy = captioned and not record.turns and copied < config.shard_size and digest in own
                reason = "" if copy else DUPLICATE
        state.next += 1
        advance()
        if reason:
            drops.add(name, reason, detail, lost)
            continue
        if copy:
            copied += 1
        else:
            full += 1
            copies.add_new(digest)
            own.add(digest)
        assert record is not None
        yield KeptRecord(
            number, name, tuple(map(jpeg, images)), replace(record, images=()), digest, _cropped(images), copy
        )


def _place(record: Record) -> str:
    """Return where a record comes from: the file of its picture, if it has one of its own."""
    (image, *others) = record.images or (None,)
    return str(image) if isinstance(image, Path) and not others and not record.turns else record.name


def _pictures(record: Record) -> tuple[ImageSource, ...]:
    """Return a record's pictures: any number with a conversation, otherwise one."""
    if not record.turns and len(record.images) != 1:
        raise ValueError(f"{record.name} has {len(record.images)} pictures, not one")
    return record.images


def _fault(image: Image.Image, config: PrepareConfig, scorer: Scorer | None) -> tuple[str, str]:
    """Return why a picture by itself is dropped, as a reason and a detail; `NONE` if it is not."""
    short, long = sorted(image.size)
    size = f"{image.width} x {image.height} pixels"
    if short < config.min_side:
        return "too small", size
    if long > config.max_aspect * short:
        return "too long or too wide", size
    if scorer is not None and (score := scorer(image)) < config.min_score:
        return "low score", f"{score:g}"
    return NONE


def _cropped(images: list[Image.Image]) -> float:
    """Return the share of a single picture's area that a square crop leaves out."""
    return 1 - min(images[0].size) / max(images[0].size) if len(images) == 1 else 0.0


def _kept(
    passed: list[KeptRecord],
    state: State,
    copies: KeptDigests,
    config: PrepareConfig,
    captioner: Captioner | None,
    drops: Drops,
) -> list[KeptRecord]:
    """Return the shard with final captions; a copy is kept only if the picture that it copies gets no caption."""
    found = _captioned([kept for kept in passed if not kept.copy], state, copies, config, captioner, drops)
    for kept in passed:
        if kept.copy and kept.digest in copies:
            drops.add(kept.name, DUPLICATE)
        elif kept.copy:
            copies.add_new(kept.digest)
            found += _captioned([kept], state, copies, config, captioner, drops)
    return sorted(found, key=lambda kept: kept.number)


def _captioned(
    shard: list[KeptRecord],
    state: State,
    copies: KeptDigests,
    config: PrepareConfig,
    captioner: Captioner | None,
    drops: Drops,
) -> list[KeptRecord]:
    """Return the shard with final captions; pictures without one are dropped, and conversations stay as they are."""
    asked = [kept for kept in shard if not kept.record.turns]
    captions = {kept.number: kept.record.text for kept in shard}
    for start in range(0, len(asked) if captioner is not None else 0, config.batch_size):
        batch = asked[start : start + config.batch_size]
        said = captioner([load_image(kept.jpegs[0]) for kept in batch]) if captioner is not None else []
        captions |= {kept.number: final_answer(caption) for kept, caption in zip(batch, said, strict=True)}
    found = []
    for kept in shard:
        text = " ".join(captions[kept.number].split())
        if not text and not kept.record.turns:
            drops.add(kept.name, NO_CAPTION)
            copies.discard(kept.digest)  # a later copy may have one
            continue
        sentences = SENTENCE.split(text)
        random = Random(f"{config.seed}/{kept.number}").random()
        if not kept.record.turns and len(sentences) > 1 and random < config.short_share:
            text = sentences[0]
            state.cut += 1
        state.counts["kept"] += 1
        state.talks += bool(kept.record.turns)
        if not kept.record.turns:
            state.words += len(text.split())
            state.cropped += kept.cropped
        state.notes.update([kept.record.note] if kept.record.note else [])
        found.append(replace(kept, record=replace(kept.record, text=text)))
    return found
