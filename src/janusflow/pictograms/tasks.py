"""What the pictograms benchmark generates and asks.

Its items are seen and unseen combinations, pictures as in training, open prompts, reconstructions and questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Annotated, Any

from annotated_types import Interval

from janusflow.evaluation.protocol import Item
from janusflow.pictograms.held_out import COLOR, GENDER, STYLE, TINT, TONE
from janusflow.pictograms.judge import Judge, reduced
from janusflow.pictograms.pictures import PHOSPHOR
from janusflow.pictograms.reading import FACTORS, read
from janusflow.pictograms.targets import Columns, Target
from janusflow.processing.images import load_image

SEEN, LIKE, VAE, OPEN, NAME, STYLE_ASKED = "seen", "like", "vae", "open", "name", "asked style"
KINDS = (STYLE, TONE, COLOR, GENDER, TINT)
ASKED = {  # targets of each kind of picture; the first decides the score
    SEEN: ("subject", "style"),
    STYLE: ("subject", "style"),
    TONE: ("tone", "person", "style"),
    COLOR: ("color", "shape", "style"),
    GENDER: ("gender", "role", "style"),
    TINT: ("weight", "style"),
    LIKE: ("style",),
    VAE: ("style",),
    OPEN: ("style",),
}
QUESTIONS = {NAME: "What is this?", STYLE_ASKED: "Which style is this?"}
KEPT = (
    *("id", "style", "subject", "label", "group", "subgroup", "tones", "gender", "role", "color", "shape", "weight"),
    *("background", "held_out"),
)
NO_STYLE = 1  # index of the caption without a style among a picture's captions


@dataclass(frozen=True)
class PictogramSettings:
    """How much is generated and asked.

    Attributes:
        seen: pictures per style, of combinations that training shows.
        unseen: pictures per kind of combination that training does not show; combinations repeat with other seeds.
        pictures: pictures generated for KID, recall and coverage, in addition to the same number of reconstructions and
            real ones.
        open: prompts that leave the style open, for the spread of what they do not name.
        open_seeds: pictures per open prompt.
        questions: questions about pictures of unseen styles and combinations, this many each for the name and for the
            style.
        subjects: number of subjects that the judge names.
        side: side in pixels that real pictures are reduced to before the judge sees them, for a model that generates
            smaller pictures than those of the data set.
        tuning: whether to choose options of generating on other prompts: only KID, over `prompts_tuning.jsonl`.
        seed: seed of all choices, the judge and the noise.
        noise: seed of the noise, if it is not `seed`: the same prompts and judge with other noise.
    """

    seen: Annotated[int, Interval(ge=0, le=10_000)] = 40
    unseen: Annotated[int, Interval(ge=0, le=10_000)] = 100
    pictures: Annotated[int, Interval(ge=0, le=100_000)] = 2000
    open: Annotated[int, Interval(ge=0, le=10_000)] = 50
    open_seeds: Annotated[int, Interval(ge=1, le=1000)] = 20
    questions: Annotated[int, Interval(ge=0, le=10_000)] = 200
    subjects: Annotated[int, Interval(ge=2, le=10_000)] = 300
    side: Annotated[int, Interval(ge=8, le=1024)] | None = None
    tuning: bool = False
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    noise: Annotated[int, Interval(ge=0, lt=2**63)] | None = None


@dataclass(frozen=True)
class Tasks:
    """Maker of the benchmark's items.

    Attributes:
        real: rows from `read_pictures`.
        judge: the judge; only what it knows is asked for.
        targets: targets of the judge by name.
        settings: numbers of items, see `PictogramSettings`.
        tuning: rows that options are chosen on.
    """

    real: Sequence[Columns]
    judge: Judge
    targets: Mapping[str, Target]
    settings: PictogramSettings
    tuning: Sequence[Columns] = ()

    def seen(self) -> Iterator[Item]:
        """Yield combinations that training shows, except those that options are chosen on."""
        left_out = {row["id"] for row in self.tuning}
        by_style: dict[str, list[Columns]] = defaultdict(list)
        for row in self.real:
            if not row["held_out"] and row["id"] not in left_out and self.judge.knows(self.targets["subject"], row):
                by_style[row["style"]].append(row)
        for style, rows in sorted(by_style.items()):
            for number, row in enumerate(self._rng(f"{SEEN}/{style}").sample(rows, min(self.settings.seen, len(rows)))):
                yield self._drawn(f"{SEEN}/{style}/{number:04d}", SEEN, row, number)

    def unseen(self) -> Iterator[Item]:
        """Yield combinations of each kind that training does not show."""
        for kind in KINDS:
            target = self.targets[ASKED[kind][0]]
            rows = [row for row in self.real if row["held_out"] == kind and self.judge.knows(target, row)]
            self._rng(f"unseen/{kind}").shuffle(rows)
            for number, row in enumerate(islice(cycle(rows), self.settings.unseen)):
                key, group = f"unseen/{kind}/{number:04d}", f"unseen/{kind}/{row['id']}"
                yield self._drawn(key, kind, row, number, group)

    def like(self) -> Iterator[Item]:
        """Yield pictures as in training or, to choose options, of the tuning rows; they repeat with other seeds."""
        rows = self.tuning if self.settings.tuning else self._others()
        for number, row in enumerate(islice(cycle(rows), self.settings.pictures)):
            yield self._drawn(f"{LIKE}/{number:05d}", LIKE, row, number)

    def reconstructed(self) -> Iterator[Item]:
        """Yield the real pictures of `like`, to be reconstructed by the VAE."""
        for number, row in enumerate(self._others()[: self.settings.pictures]):
            data = {**_kept(row), "kind": VAE}
            picture = reduced(load_image(row["image"]["bytes"]), self.settings.side)
            yield Item(f"{VAE}/{number:05d}", row["captions"][0], images=(picture,), data=data)

    def open(self) -> Iterator[Item]:
        """Yield prompts without a style, each with the shares of bins in real training pictures of its subject."""
        by_subject: dict[str, list[Columns]] = defaultdict(list)
        subjects = set(self.judge.labels.get("subject", ()))
        for row in self.real:
            if row["subject"] in subjects and not row["held_out"]:
                by_subject[row["subject"]].append(row)
        order = sorted(by_subject)
        self._rng(OPEN).shuffle(order)
        for number, subject in enumerate(order[: self.settings.open]):
            rows = by_subject[subject]
            data = {**_kept(rows[0]), "kind": OPEN, "wanted": shares(rows)}
            for seed in range(self.settings.open_seeds):
                noise = self._noise(number * self.settings.open_seeds + seed)
                key, group = f"{OPEN}/{number:04d}-{seed:03d}", f"{OPEN}/{number:04d}"
                yield Item(key, rows[0]["captions"][NO_STYLE], seed=noise, group=group, data=data)

    def questions(self) -> Iterator[Item]:
        """Yield questions about the name and the style of emoji of unseen combinations."""
        rows = [row for row in self.real if row["held_out"] and row["style"] != PHOSPHOR]
        self._rng("questions").shuffle(rows)
        for kind, question in QUESTIONS.items():
            for number, row in enumerate(rows[: self.settings.questions]):
                data = {**_kept(row), "synonyms": row["synonyms"], "keywords": row["keywords"], "kind": kind}
                picture, key = load_image(row["image"]["bytes"]), f"ask/{kind.replace(' ', '-')}/{number:04d}"
                yield Item(key, question, (picture,), group=f"ask/{row['id']}", system=None, data=data)

    def _others(self) -> list[Columns]:
        """Return training pictures in a fixed random order, without the judge's reference and the tuning rows."""
        left_out = {*self.judge.names, *(row["id"] for row in self.tuning)}
        rows = [row for row in self.real if not row["held_out"] and row["id"] not in left_out]
        self._rng(LIKE).shuffle(rows)
        return rows

    def _drawn(self, key: str, kind: str, row: Columns, number: int, group: str = "") -> Item:
        prompt = row["prompt"] if "prompt" in row else row["captions"][0]
        return Item(key, prompt, seed=self._noise(number), group=group, data={**_kept(row), "kind": kind})

    def _noise(self, number: int) -> int:
        first = self.settings.seed if self.settings.noise is None else self.settings.noise
        return first + number

    def _rng(self, name: str) -> Random:
        return Random(f"{name}/{self.settings.seed}")


def shares(rows: Sequence[Columns]) -> dict[str, dict[str, float]]:
    """Return the shares of pictures in the bins of each factor, including style."""
    readings = [read(load_image(row["image"]["bytes"])) for row in rows]
    found = {factor: Counter(getattr(one, factor) for one in readings) for factor in FACTORS}
    found["style"] = Counter(row["style"] for row in rows)
    return {factor: {name: n / len(rows) for name, n in counts.items()} for factor, counts in found.items()}


def _kept(row: Columns) -> dict[str, Any]:
    return {name: row[name] for name in KEPT}
