"""Files of a preparation next to its shards: state, digests of what was kept, list of what was dropped, report."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from janusflow.data.constraints import NonNegativeFloat, NonNegativeInt
from janusflow.data.duplicates import Copies
from janusflow.data.folders import OUTSIDE
from janusflow.data.streams import Place
from janusflow.files import checked, read_json, remove_leftovers, write_text

DIGEST = r"^[0-9a-f]*(:[0-9a-f]*)?$"  # form of `duplicates.digest_of`
DROPPED, DIGESTS, SHEET = "dropped.jsonl", "digests.log", "sheet.jpg"
STATE, LOCK = "state.json", ".lock"
SHARD = re.compile(r"shard-(\d{6,})\.(?:tar|parquet|tmp)")  # older versions wrote .tmp until a shard was complete
DUPLICATE = "duplicate"
SAID = ("kept", DUPLICATE)  # counts that a summary always names
OTHER_FILES = ("not a picture", "not in the metadata", OUTSIDE)  # reasons for files that no record comes from
READ = ("kind", "path", "split", "streaming")  # fields of a source that a report shows
CROPPED = 0.05  # share of the area from which cropping is reported


@dataclass
class State:
    """The progress of a run: what it needs to continue, besides the growing files `dropped.jsonl` and `digests.log`.

    Attributes:
        next: number of the next record.
        shards: number of shards written so far.
        counts: number of records by what became of them: "kept", or the reason for dropping them.
        hashes: digests of kept records, if an earlier version wrote them here and not into `digests.log`.
        words, cut: number of words in all kept captions, and number of captions that were cut.
        talks: number of kept conversations.
        cropped: share of a picture's area that a square crop leaves out, summed over the kept captioned pictures.
        notes: what was left out of conversations, and how often.
        dropped, digests: bytes of `dropped.jsonl` and `digests.log` that belong to the records so far.
        stream: position in a streamed source.
        finished: whether all records were taken.
        config: settings of the run; a run with other settings cannot continue it.
    """

    next: NonNegativeInt = 0
    shards: NonNegativeInt = 0
    counts: Counter[str] = field(default_factory=Counter)
    hashes: list[Annotated[str, Field(pattern=DIGEST)]] = field(default_factory=list)
    words: NonNegativeInt = 0
    cut: NonNegativeInt = 0
    talks: NonNegativeInt = 0
    cropped: NonNegativeFloat = 0.0
    notes: Counter[str] = field(default_factory=Counter)
    dropped: NonNegativeInt = 0
    digests: NonNegativeInt = 0
    stream: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """Return how many of the records were kept, in words."""
        kept, total = self.counts["kept"], sum(self.counts[one] for one in self.counts if one not in OTHER_FILES)
        what = "pictures" if not self.talks else "conversations" if self.talks == kept else "pictures and conversations"
        return f"{kept} of {total} {what} kept"

    def dropped_in_words(self) -> str:
        """Return how many records were dropped for each reason; duplicates are always listed."""
        copies = self.counts[DUPLICATE]
        reasons = [f"{copies} duplicate{'' if copies == 1 else 's'}"]
        reasons += [f"{count} {one}" for one, count in self.counts.most_common() if one not in (*SAID, *OTHER_FILES)]
        return ", ".join(reasons)

    def other_files(self) -> str:
        """Describe the files that no record comes from; empty if there are none."""
        return ", ".join(f"{self.counts[one]} {one}" for one in OTHER_FILES if self.counts[one])


class Growing:
    """Lines of a file that grows with a state.

    New lines are appended before the state is written. Lines that a killed run appended after its last state are cut
    off.

    Args:
        size: number of bytes that belong to the state.

    Raises:
        ValueError: if the file is shorter.
    """

    def __init__(self, file: Path, size: int) -> None:
        self.file, self.new = file, list[str]()
        file.touch()
        if file.stat().st_size < size:
            raise ValueError(f"{file} is shorter than the {size} bytes that its run had written")
        with file.open("r+b") as opened:
            opened.truncate(size)

    def write(self) -> int:
        """Append the new lines, and return the size of the file."""
        with self.file.open("ab") as opened:
            opened.write("".join(f"{line}\n" for line in self.new).encode(errors="backslashreplace"))  # odd file names
            self.new.clear()
            return opened.tell()


class KeptDigests(Copies):
    """The digests of kept records, in memory and in `digests.log`.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, out: Path, state: State) -> None:
        self.log, self.state = Growing(out / DIGESTS, state.digests), state
        known = self.log.file.read_text(errors="replace").splitlines()
        if any(not re.match(DIGEST, digest) for digest in known):
            raise ValueError(f"{self.log.file} is damaged: a line is not the digest of a record")
        super().__init__([*known, *state.hashes])
        self.log.new, state.hashes = state.hashes, []

    def add_new(self, digest: str) -> None:
        """Add a record of this run."""
        self.add(digest)
        self.log.new.append(digest)

    def discard(self, digest: str) -> None:
        super().discard(digest)
        self.log.new.remove(digest)

    def write(self) -> None:
        """Append the new digests."""
        self.state.digests = self.log.write()


class Drops:
    """Dropped records and files, counted at once and written with the state, so that a killed run lists none twice."""

    def __init__(self, out: Path, state: State) -> None:
        self.log, self.state = Growing(out / DROPPED, state.dropped), state

    def add(self, name: str, reason: str, detail: str = "", records: int = 1) -> None:
        """Count a record or a file under a reason; `detail` is more specific, and several records share its line."""
        self.state.counts[reason] += records
        row: dict[str, Any] = {"record": name, "reason": reason, **({"detail": detail} if detail else {})}
        row |= {"records": records} if records > 1 else {}
        self.log.new.append(json.dumps(row, ensure_ascii=False))

    def write(self) -> None:
        """Append the new lines."""
        self.state.dropped = self.log.write()


def continued(out: Path, settings: dict[str, Any], read: Collection[Path]) -> State:
    """Return the state of the run in a folder, or of a new run; what was written after that state is removed.

    Args:
        read: files that the source reads.

    Raises:
        ValueError: if the run there has other settings or its state is damaged, or if without a run, there are shards
            or files that the source reads.
    """
    remove_leftovers(out)
    file = out / STATE
    if not file.is_file():
        if foreign := sorted(out.glob("shard-*")):
            raise ValueError(f"{foreign[0]} exists, but no {STATE} of a run that wrote it; give another --out")
        if out.resolve() in {folder.resolve() for folder in {each.parent for each in read}}:
            raise ValueError(f"{out} contains files that the source reads; give another --out")
        return State(config=settings)
    state = checked(State, read_json(file), file)
    checked(dict[str, NonNegativeInt], state.counts, f"{file}: counts")
    if state.stream:
        checked(Place, state.stream, f"{file}: stream")
    if state.next > state.counts.total():
        raise ValueError(f"{file} is damaged: next is {state.next}, but counts has {state.counts.total()} records")
    count = settings.get("records")  # None for a stream
    if count is not None and state.config.setdefault("records", count) != count:  # earlier versions did not store it
        raise ValueError(
            f"{out} was begun with {state.config['records']} records, and {_in_words(settings['source'])} has {count} "
            f"now; put them back, or use another --out"
        )
    other = [name for name in {**settings, **state.config} if state.config.get(name) != settings.get(name)]
    if other:
        made = ", ".join(f"{name}={_in_words(state.config.get(name))}" for name in other)
        raise ValueError(f"{out} was made with {made}; use the same settings or another --out")
    shards = {shard: int(found[1]) for shard in out.iterdir() if (found := SHARD.fullmatch(shard.name))}
    later = [shard for shard, number in shards.items() if number >= state.shards]
    there = len(shards) - len(later)
    if state.shards > there:
        raise ValueError(f"{file} is damaged or files are lost: {state.shards} shards, but {there} files are there")
    for shard in later:  # one written after the state is made again
        shard.unlink()
    return state


def _in_words(value: Any) -> str:
    """Return a setting as errors show it: for a source, only its path or kind."""
    return str(value.get("path") or value.get("kind")) if isinstance(value, dict) else str(value)


def save_state(out: Path, state: State) -> None:
    """Write the state, whose size does not grow with the records."""
    content = {**vars(state), "counts": dict(state.counts), "notes": dict(state.notes)}
    write_text(out / STATE, json.dumps(content))


def write_report(out: Path, state: State, unread: str = "") -> None:
    """Write `report.json` and `report.md`; `unread` says which splits of a folder were not read."""
    kept = state.counts["kept"]
    captions = kept - state.talks
    source = {name: value for name, value in state.config["source"].items() if name in READ}
    summary = {
        "records": sum(count for reason, count in state.counts.items() if reason not in OTHER_FILES),
        "kept": kept,
        "conversations": state.talks,
        "dropped": {DUPLICATE: 0}
        | {reason: count for reason, count in state.counts.items() if reason not in ("kept", *OTHER_FILES)},
        "other files": {reason: state.counts[reason] for reason in OTHER_FILES if state.counts[reason]},
        "notes": dict(state.notes),
        "shards": state.shards,
        "words per caption": round(state.words / max(captions, 1), 2),
        "captions cut to one sentence": state.cut,
        "area that square crops leave out": round(state.cropped / max(captions, 1), 4),
        "settings": {**state.config, "source": source},
    }
    write_text(out / "report.json", json.dumps(summary, indent=1) + "\n")
    lines = [
        f"# {state.summary()}, {state.shards} shard{'' if state.shards == 1 else 's'}",
        "",
        "| what became of them | records |",
        "| --- | --- |",
    ]
    rows = {"kept": kept, DUPLICATE: state.counts[DUPLICATE]} | dict(state.counts.most_common())
    lines += [f"| {reason} | {count} |" for reason, count in rows.items() if reason not in OTHER_FILES]
    lines += ["", f"{DROPPED} names everything that was dropped; {SHEET} shows some of what was kept.", ""]
    lines += [f"Files that are not records: {state.other_files()}."] if state.other_files() else []
    lines += [f"Splits: {unread}."] if unread else []
    if captions:
        words, ending = summary["words per caption"], "" if state.cut == 1 else "s"
        lines += [f"{words} words per caption; {state.cut} caption{ending} cut to the first sentence."]
    lines += [f"{state.talks} of those kept are conversations, which are as they were."] if state.talks else []
    lines += [f"{count} x {note}." for note, count in state.notes.most_common()]
    lines += [cropping(state)] if cropping(state) else []
    write_text(out / "report.md", "\n".join(lines) + "\n")


def cropping(state: State) -> str:
    """Describe how much square crops will leave out of the captioned pictures; empty if it is little."""
    share = state.cropped / max(state.counts["kept"] - state.talks, 1)
    if share < CROPPED:
        return ""
    return (
        f"Training on squares leaves out {share:.0%} of the area of the captioned pictures; "
        "crop=pad keeps them whole, with white bars."
    )
