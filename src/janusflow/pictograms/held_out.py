"""Combinations that training never sees, although it sees each of their parts: what a model can only combine.

Five kinds: a style family and a subject, a skin tone and a person, a color and a shape, a gender and a role, and a
weight and a color of one of Phosphor's icons. They are chosen once by `choose` and kept in `held_out.json` of this
package, so that every data set, of whatever styles and size, leaves out the same.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from janusflow.files import checked, read_json
from janusflow.pictograms.catalogue import STYLES
from janusflow.pictograms.names import GENDERS, TONES, Subject, roles
from janusflow.pictograms.pictures import Collection, Picture
from janusflow.pictograms.readers import WEIGHTS
from janusflow.pictograms.render import TINTS

FILE = Path(__file__).parent / "held_out.json"
STYLE, TONE, COLOR, GENDER, TINT = "style", "tone", "color", "gender", "tint"
COUNTS = {STYLE: 250, TONE: 100, COLOR: 6, GENDER: 10, TINT: 150}
ALIKE = ("component", "flags", "symbols")  # groups whose pictures hardly differ between styles
REPEATED = (("red", "heart"), ("red", "circle"))  # other subjects look like them: the heart suit, a hollow circle


@dataclass(frozen=True)
class Pair:
    """A combination.

    Attributes:
        subject: id of the subject (style, tint), label of the person (tone), shape (color) or role (gender).
        value: the style family, skin tone, color or gender; of an icon its weight and color, with a space between.
        label: of the subject, for readers.
    """

    subject: str
    value: str
    label: str


@dataclass(frozen=True)
class HeldOut:
    """All combinations that are held out.

    Attributes:
        seed: that chose them.
        pairs: by kind.
    """

    seed: int
    pairs: dict[str, list[Pair]]

    def __post_init__(self) -> None:
        lookup = {(kind, pair.subject, pair.value) for kind, found in self.pairs.items() for pair in found}
        object.__setattr__(self, "_lookup", lookup)

    def kind(self, picture: Picture) -> str:
        """The first kind of combination that keeps a picture out of training, or ""."""
        subject = picture.subject
        combinations = [
            (STYLE, subject.id, picture.style.family),
            *((TONE, subject.label, tone) for tone in subject.tones),
            (COLOR, subject.shape, subject.colour),
            (GENDER, subject.role, subject.gender),
            (TINT, subject.id, f"{picture.weight} {picture.tint}"),
        ]
        lookup: set[tuple[str, str, str]] = vars(self)["_lookup"]
        return next((kind for kind, *rest in combinations if (kind, *rest) in lookup), "")

    def tints(self) -> dict[str, tuple[str, str]]:
        """Weight and color that are held out, by id of the icon."""
        found = {}
        for pair in self.pairs[TINT]:
            weight, _, tint = pair.value.partition(" ")
            found[pair.subject] = (weight, tint)
        return found

    def as_json(self) -> str:
        """Return the JSON that `read_held_out` reads, one line per combination."""
        kinds = []
        for kind, found in self.pairs.items():
            rows = ",\n".join(f"  {json.dumps(asdict(pair), ensure_ascii=False)}" for pair in found)
            kinds.append(f" {json.dumps(kind)}: [\n{rows}\n ]")
        return f'{{"seed": {self.seed}, "pairs": {{\n' + ",\n".join(kinds) + "\n}}\n"


def read_held_out(file: Path = FILE) -> HeldOut:
    """The combinations of a file, by default the package's.

    Raises:
        ValueError: if it is damaged.
    """
    return checked(HeldOut, read_json(file), file)


def choose(collection: Collection, seed: int, counts: dict[str, int] | None = None) -> HeldOut:
    """Choose combinations so that every part of each occurs in others that are kept.

    Args:
        collection: with all styles.
        seed: of the choice.
        counts: of each kind, by default `COUNTS`.
    """
    sizes = COUNTS if counts is None else counts
    genders = _genders(collection.names, Random(f"gender/{seed}"), sizes[GENDER])
    taken = {pair.subject for pair in genders}
    pairs = {
        STYLE: _styles(collection.pictures(), Random(f"style/{seed}"), sizes[STYLE]),
        TONE: _tones(collection.names.values(), Random(f"tone/{seed}"), sizes[TONE], taken),
        COLOR: _colours(collection.names.values(), Random(f"color/{seed}"), sizes[COLOR]),
        GENDER: genders,
        TINT: _tints(collection, Random(f"tint/{seed}"), sizes[TINT]),
    }
    return HeldOut(seed, pairs)


def _styles(pictures: Iterable[Picture], rng: Random, count: int) -> list[Pair]:
    """One family of subjects that others have too: no people, whose tones would show them, no flags, no shapes."""
    families: dict[Subject, set[str]] = defaultdict(set)
    for picture in pictures:
        families[picture.subject].add(picture.style.family)
    fit = [
        subject
        for subject, found in families.items()
        if len(found & {STYLES[name].family for name in ("noto", "noto-v1", "flat")}) > 1
        and subject.group not in ALIKE
        and subject.subgroup != "family"
        and not (subject.toned or subject.tones or subject.role or subject.shape)
    ]
    chosen = rng.sample(sorted(fit, key=lambda subject: subject.id), count)
    return [Pair(one.id, rng.choice(sorted(families[one])), one.label) for one in chosen]


def _tones(subjects: Iterable[Subject], rng: Random, count: int, taken: set[str]) -> list[Pair]:
    """One tone of single people, not of the roles of which a gender is held out."""
    found = {s.label for s in subjects if s.is_person and len(s.tones) == 1 and s.role not in taken}
    couples = {s.label for s in subjects if len(s.tones) > 1}
    return [Pair(label, rng.choice(TONES), label) for label in rng.sample(sorted(found - couples), count)]


def _colours(subjects: Iterable[Subject], rng: Random, count: int) -> list[Pair]:
    """A color of a shape that other shapes have too; at most one of each color.

    Squares that come in several sizes, which are black and white ones, stay.
    """
    shapes: dict[str, set[str]] = defaultdict(set)
    fit: dict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        if subject.shape:
            shapes[subject.colour].add(subject.shape)
        if subject.shape and subject.label == f"{subject.colour} {subject.shape}":
            fit[subject.colour].append(subject.shape)
    common = sorted(colour for colour in fit if len(shapes[colour]) > 1)
    left = {colour: sorted(shape for shape in fit[colour] if (colour, shape) not in REPEATED) for colour in common}
    chosen = [(colour, rng.choice(left[colour])) for colour in rng.sample(common, count)]
    return [Pair(shape, colour, f"{colour} {shape}") for colour, shape in chosen]


def _genders(names: dict[str, Subject], rng: Random, count: int) -> list[Pair]:
    genders = sorted(set(GENDERS.values()))
    chosen = [(role, rng.choice(genders)) for role in rng.sample(roles(names), count)]
    return [Pair(role, gender, f"{gender} {role}") for role, gender in chosen]


def _tints(collection: Collection, rng: Random, count: int) -> list[Pair]:
    found = []
    icons = collection.icons()
    for icon in rng.sample(list(icons), count):
        weight, tint = rng.choice(WEIGHTS), rng.choice(list(TINTS))
        found.append(Pair(icon, f"{weight} {tint}", icons[icon][weight].subject.label))
    return found
