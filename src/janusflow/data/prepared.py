"""What a preparation keeps in its folder: its state, what was dropped and why, and the report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DROPPED, SHEET = "dropped.jsonl", "sheet.jpg"
CROPPED = 0.05  # share of the area from which on cropping is worth a word


@dataclass
class State:
    """How far a run is: everything that continuing needs.

    Attributes:
        next: number of the next record.
        shards: written so far.
        counts: of what became of the records: "kept", and reasons for dropping.
        hashes: of the pictures kept.
        words: words of all captions kept, and how many were cut.
        talks: conversations kept.
        cropped: share of a picture's area that a square crop leaves out, summed over the captioned pictures kept.
        notes: of what was left out of conversations, and how often.
        dropped: bytes of `dropped.jsonl` that belong to the records so far.
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
    talks: int = 0
    cropped: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    config: dict[str, Any] = field(default_factory=dict)


class Drops:
    """What is dropped, counted at once and written with the state, so that a run that was killed names nothing twice.

    Args:
        out: folder of `dropped.jsonl`.
        state: of the run.
    """

    def __init__(self, out: Path, state: State) -> None:
        self.file, self.state = out / DROPPED, state
        self._new: list[str] = []
        self.file.touch()
        with self.file.open("r+b") as opened:
            opened.truncate(state.dropped)

    def add(self, name: str, reason: str, detail: str = "") -> None:
        """Counts a record or a file under a reason; `detail` says more."""
        self.state.counts[reason] += 1
        row = {"record": name, "reason": reason, **({"detail": detail} if detail else {})}
        self._new.append(json.dumps(row, ensure_ascii=False) + "\n")

    def write(self) -> None:
        """Appends what is new."""
        with self.file.open("ab") as opened:
            opened.write("".join(self._new).encode())
            self.state.dropped = opened.tell()
        self._new.clear()


def continued(out: Path, settings: dict[str, Any]) -> State:
    """The state of the run in a folder, or of a new one; what was written after that state is removed.

    Raises:
        ValueError: if the run there has other settings.
    """
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
    sets = {"counts": Counter(raw["counts"]), "notes": Counter(raw.get("notes", {})), "hashes": set(raw["hashes"])}
    state = State(**{**raw, **sets})
    for shard in out.glob("shard-*"):  # written after the state was: it is made again
        if int(shard.stem.split("-")[1]) >= state.shards:
            shard.unlink()
    return state


def save_state(out: Path, state: State) -> None:
    """Writes the state next to its place and then renamed."""
    content = {**vars(state), "counts": dict(state.counts), "notes": dict(state.notes), "hashes": sorted(state.hashes)}
    beside = out / "state.json.tmp"
    beside.write_text(json.dumps(content))
    beside.rename(out / "state.json")


def write_report(out: Path, state: State) -> None:
    """Writes `report.json` and `report.md`."""
    kept, total = state.counts["kept"], sum(state.counts.values())
    captions = kept - state.talks
    summary = {
        "records": total,
        "kept": kept,
        "conversations": state.talks,
        "dropped": {reason: count for reason, count in state.counts.items() if reason != "kept"},
        "notes": dict(state.notes),
        "shards": state.shards,
        "words per caption": round(state.words / max(captions, 1), 2),
        "captions cut to one sentence": state.cut,
        "area that square crops leave out": round(state.cropped / max(captions, 1), 4),
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
        f"{DROPPED} names everything that was dropped; {SHEET} shows some of what was kept.",
        "",
        f"{summary['words per caption']} words per caption; {state.cut} captions cut to their first sentence.",
    ]
    lines += [f"{state.talks} of those kept are conversations, which are as they were."] if state.talks else []
    lines += [f"{count} x {note}." for note, count in state.notes.most_common()]
    lines += [cropping(state)] if cropping(state) else []
    (out / "report.md").write_text("\n".join(lines) + "\n")


def cropping(state: State) -> str:
    """What square crops will leave out of the captioned pictures, in words; empty where they leave out little."""
    share = state.cropped / max(state.counts["kept"] - state.talks, 1)
    if share < CROPPED:
        return ""
    return (
        f"Training on squares leaves out {share:.0%} of the area of the captioned pictures; "
        "crop=pad keeps them whole, with white bars."
    )
