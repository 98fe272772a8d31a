"""What the paper did before training: filter pictures, caption them anew, drop duplicates, write shards and a report.

Records are read one after the other; after every shard the state is written, so that a killed run continues with the
same command and the result is the same.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from janusflow.data.records import BROKEN, Record
from janusflow.data.rows import SourceConfig
from janusflow.data.sources import FileSource
from janusflow.data.streams import EmptyStreamError, StreamSource
from janusflow.images import load_image
from janusflow.progress import progress_bar
from janusflow.reasoning import final_answer

Captioner = Callable[[list[Image.Image]], list[str]]
Scorer = Callable[[Image.Image], float]
FORMATS = ("webdataset", "parquet")
HASH_SIDE = 8  # of the difference hash that finds duplicates
QUALITY = 92  # of the JPEGs in the shards
SENTENCE = re.compile(r"(?<=[.!?])\s+")
NAMED = 3  # broken records named while a run goes on
NO_CAPTION = "no caption"


@dataclass(frozen=True)
class PrepareConfig:
    """What is kept and how it is written.

    Attributes:
        min_side: pixels of the shorter side.
        max_aspect: longer side over shorter.
        min_score: of the scorer, if one is given.
        short_share: of the captions is cut to its first sentence.
        format: webdataset or parquet.
        shard_size: records of a shard.
        batch_size: pictures captioned at once.
        seed: decides which captions are cut.
    """

    min_side: int = 256
    max_aspect: float = 2.0
    min_score: float = 0.0
    short_share: float = 0.25
    format: str = "webdataset"
    shard_size: int = 1000
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format is {self.format!r}; allowed are {', '.join(FORMATS)}")
        for name, value in (
            ("min_side", self.min_side),
            ("shard_size", self.shard_size),
            ("batch_size", self.batch_size),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")
        if not 0 <= self.short_share <= 1:
            raise ValueError(f"short_share is {self.short_share}; expected a number from 0 to 1")
        if self.max_aspect < 1:
            raise ValueError(f"max_aspect is {self.max_aspect}; expected 1 or more")


@dataclass
class State:
    """How far a run is: everything that continuing needs.

    Attributes:
        next: number of the next record.
        shards: written so far.
        counts: of what became of the records: "kept", and reasons for dropping.
        hashes: of the pictures kept.
        words: words of all captions kept, and how many were cut.
        stream: the place in a streamed source.
        finished: whether all records were taken.
        config: of the run; another one cannot continue it.
    """

    next: int = 0
    shards: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    hashes: set[str] = field(default_factory=set)
    words: int = 0
    cut: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A picture that passed, as it is written (decoded, a shard would fill the memory), with its caption and hash."""

    number: int
    jpeg: bytes
    caption: str
    digest: str


def prepare(
    source: SourceConfig,
    out: Path,
    config: PrepareConfig,
    *,
    captioner: Captioner | None = None,
    scorer: Scorer | None = None,
    names: Mapping[str, str | None] | None = None,
) -> State:
    """Reads a source, writes `shard-NNNNNN` files, `report.json` and `report.md` into a folder.

    Args:
        source: pictures, with captions if no captioner is given.
        out: the folder; a run that was stopped there continues.
        config: see `PrepareConfig`.
        captioner: gives new captions.
        scorer: gives a picture's score, for `min_score`.
        names: what captioner and scorer are (model, question, ...); a run with others cannot be continued.

    Returns:
        The final state: what was kept and what was dropped, and why.

    Raises:
        ValueError: if the source cannot be read or holds no records, or `out` holds a run with other settings.
    """
    given = {"captioner": captioner is not None, "scorer": scorer is not None}
    state = _continue(out, {**asdict(config), "source": asdict(source), **given, **(names or {})})
    records = _Records(source, state)
    with progress_bar("preparing", records.total) as advance:
        for _ in range(state.next):
            advance()
        while not state.finished:
            captioned = captioner is not None
            passed = list(_shard(records, state, config, scorer, advance, captioned=captioned))
            shard = _captioned(passed, state, config, captioner)
            if shard:
                _write_shard(out, state.shards, shard, config.format)
                state.shards += 1
            records.note(state)
            _save(out, state)
    _report(out, state)
    return state


class _Records:
    """The records of a source one after the other, on disk or streamed, from where a state says."""

    def __init__(self, source: SourceConfig, state: State) -> None:
        self.stream = StreamSource(source, 0, 1) if source.streaming else None
        self.file = None if source.streaming else FileSource(source)
        self.total = self.file.length if self.file else None
        if self.stream is not None and state.stream:
            self.stream.restore(state.stream)

    def take(self, number: int) -> Record | None:
        """The record with that number, or None behind the last.

        Raises:
            ValueError: if it is malformed.
            EmptyStreamError: if there is not one.
        """
        if self.stream is not None:
            return self.stream.take()
        assert self.file is not None and self.file.length is not None
        return self.file.record(number) if number < self.file.length else None

    def note(self, state: State) -> None:
        """Writes the place of a stream into the state."""
        if self.stream is not None:
            state.stream = self.stream.state()


def _shard(
    records: _Records,
    state: State,
    config: PrepareConfig,
    scorer: Scorer | None,
    advance: Callable[[], None],
    *,
    captioned: bool,
) -> Iterator[Kept]:
    """Pictures that pass, until a shard is full or nothing is left; not those without a caption that get none."""
    full = 0
    while full < config.shard_size:
        number = state.next
        try:
            record = records.take(number)
            if record is None:
                state.finished = True
                return
            image = load_image(_only(record))
        except EmptyStreamError:
            raise
        except BROKEN as error:
            reason = "broken or malformed"
            if state.counts[reason] < NAMED:
                warnings.warn(f"left out: {error}", stacklevel=2)
        else:
            text, digest = record.text, difference_hash(image)
            reason = _fault(image, config, scorer)
            if not reason and not captioned and not text.strip():
                reason = NO_CAPTION
            elif not reason and digest in state.hashes:
                reason = "duplicate"
        state.next += 1
        advance()
        if reason:
            state.counts[reason] += 1
        else:
            full += 1
            state.hashes.add(digest)
            yield Kept(number, _jpeg(image), text, digest)


def _only(record: Record) -> Any:
    if len(record.images) != 1:
        raise ValueError(f"{record.name} has {len(record.images)} pictures, not one")
    return record.images[0]


def _fault(image: Image.Image, config: PrepareConfig, scorer: Scorer | None) -> str:
    """Why a picture is dropped for itself, or nothing."""
    short, long = sorted(image.size)
    if short < config.min_side:
        return "too small"
    if long > config.max_aspect * short:
        return "too long or too wide"
    if scorer is not None and scorer(image) < config.min_score:
        return "low score"
    return ""


def difference_hash(image: Image.Image) -> str:
    """64 bits that most pictures keep when scaled or recompressed: is each cell brighter than its right neighbour?

    The mean colour, in steps of 16, is added, so that plain pictures of different colours differ.
    """
    grey = np.asarray(image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS), dtype=np.int16)
    bits = np.packbits((grey[:, 1:] > grey[:, :-1]).flatten())
    colour = np.asarray(image.resize((1, 1), Image.Resampling.BOX)).flatten() // 16
    return bits.tobytes().hex() + "".join(f"{value:x}" for value in colour)


def _captioned(shard: list[Kept], state: State, config: PrepareConfig, captioner: Captioner | None) -> list[Kept]:
    """The shard with its final captions; pictures without one are dropped."""
    captions = [kept.caption for kept in shard]
    if captioner is not None:
        captions = []
        for start in range(0, len(shard), config.batch_size):
            captions += captioner([load_image(kept.jpeg) for kept in shard[start : start + config.batch_size]])
    found = []
    for kept, caption in zip(shard, captions, strict=True):
        text = " ".join((caption if captioner is None else final_answer(caption)).split())
        if not text:
            state.counts[NO_CAPTION] += 1
            state.hashes.discard(kept.digest)  # a later copy may have one
            continue
        sentences = SENTENCE.split(text)
        if len(sentences) > 1 and Random(f"{config.seed}/{kept.number}").random() < config.short_share:
            text = sentences[0]
            state.cut += 1
        state.counts["kept"] += 1
        state.words += len(text.split())
        found.append(replace(kept, caption=text))
    return found


def _write_shard(out: Path, number: int, shard: list[Kept], kind: str) -> None:
    suffix = {"webdataset": "tar", "parquet": "parquet"}[kind]
    final = out / f"shard-{number:06d}.{suffix}"
    beside = final.with_suffix(".tmp")
    if kind == "webdataset":
        with tarfile.open(beside, "w") as tar:
            for kept in shard:
                for ending, data in (("jpg", kept.jpeg), ("txt", kept.caption.encode())):
                    entry = tarfile.TarInfo(f"{kept.number:09d}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    else:
        import datasets

        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        rows = [{"image": {"bytes": kept.jpeg, "path": None}, "text": kept.caption} for kept in shard]
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(beside))
    beside.rename(final)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _continue(out: Path, settings: dict[str, Any]) -> State:
    out.mkdir(parents=True, exist_ok=True)
    for half in out.glob("*.tmp"):
        half.unlink()
    file = out / "state.json"
    if not file.is_file():
        return State(config=settings)
    raw = json.loads(file.read_text())
    other = [name for name in {**settings, **raw["config"]} if raw["config"].get(name) != settings.get(name)]
    if other:
        names = ", ".join(other)
        raise ValueError(f"{out} holds a run with other settings ({names}); use its own, or give another folder")
    state = State(**{**raw, "counts": Counter(raw["counts"]), "hashes": set(raw["hashes"])})
    for shard in out.glob("shard-*"):  # written after the state was: it is made again
        if int(shard.stem.split("-")[1]) >= state.shards:
            shard.unlink()
    return state


def _save(out: Path, state: State) -> None:
    content = {**vars(state), "counts": dict(state.counts), "hashes": sorted(state.hashes)}
    beside = out / "state.json.tmp"
    beside.write_text(json.dumps(content))
    beside.rename(out / "state.json")


def _report(out: Path, state: State) -> None:
    kept, total = state.counts["kept"], sum(state.counts.values())
    summary = {
        "records": total,
        "kept": kept,
        "dropped": {reason: count for reason, count in state.counts.items() if reason != "kept"},
        "shards": state.shards,
        "words per caption": round(state.words / max(kept, 1), 2),
        "captions cut to one sentence": state.cut,
        "settings": state.config,
    }
    (out / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    lines = [
        f"# {kept} of {total} pictures kept, {state.shards} shards",
        "",
        "| what became of them | pictures |",
        "| --- | --- |",
    ]
    lines += [f"| {reason} | {count} |" for reason, count in state.counts.most_common()]
    lines += [
        "",
        f"{summary['words per caption']} words per caption; {state.cut} captions cut to their first sentence.",
    ]
    (out / "report.md").write_text("\n".join(lines) + "\n")
