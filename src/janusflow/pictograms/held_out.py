"""Combinations that training never sees, although it sees each of their parts; a model must combine the parts itself.

There are five kinds: a style family and a subject, a skin tone and a person, a color and a shape (in emoji styles, as
icons show some), a gender and a role, and a weight and a color of a Phosphor icon. `choose` selected them once, and
`held_out.json` in this package stores them, so that data sets of all styles and sizes leave out the same combinations.
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
    """A held-out combination.

    Attributes:
        subject: id of the subject (style, tint), label of the person (tone), shape (color) or role (gender).
        value: style family, skin tone, color or gender; for an icon its weight and color, separated by a space.
        label: label of the subject, for readers.
    """

    subject: str
    value: str
    label: str


@dataclass(frozen=True)
class HeldOut:
    """All held-out combinations.

    Attributes:
        seed: seed of the choice.
        pairs: combinations by kind.
    """

    seed: int
    pairs: dict[str, list[Pair]]

    def __post_init__(self) -> None:
        lookup = {(kind, pair.subject, pair.value) for kind, found in self.pairs.items() for pair in found}
        object.__setattr__(self, "_lookup", lookup)

    def kind(self, picture: Picture) -> str:
        """Return the first kind of combination that keeps a picture out of training, or ""."""
        subject = picture.subject
        combinations = [
            (STYLE, subject.id, picture.style.family),
            *((TONE, subject.label, tone) for tone in subject.tones),
            (COLOR, subject.shape, subject.color),
            (GENDER, subject.role, subject.gender),
            (TINT, subject.id, f"{picture.weight} {picture.tint}"),
        ]
        lookup: set[tuple[str, str, str]] = vars(self)["_lookup"]
        return next((kind for kind, *rest in combinations if (kind, *rest) in lookup), "")

    def tints(self) -> dict[str, tuple[str, str]]:
        """Return the held-out weight and color by icon id."""
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
    """Read the combinations from a file, by default the package's.

    Raises:
        ValueError: if the file is damaged.
    """
    return checked(HeldOut, read_json(file), file)


def choose(collection: Collection, seed: int, counts: dict[str, int] | None = None) -> HeldOut:
    """Choose combinations such that each of their parts also occurs in combinations that are kept.

    Args:
        collection: collection with all styles.
        seed: seed of the choice.
        counts: number of combinations per kind, by default `COUNTS`.
    """
    sizes = COUNTS if counts is None else counts
    genders = _genders(collection.names, Random(f"gender/{seed}"), sizes[GENDER])
    taken = {pair.subject for pair in genders}
    pairs = {
        STYLE: _styles(collection.pictures(), Random(f"style/{seed}"), sizes[STYLE]),
        TONE: _tones(collection.names.values(), Random(f"tone/{seed}"), sizes[TONE], taken),
        COLOR: _colors(collection.names.values(), Random(f"color/{seed}"), sizes[COLOR]),
        GENDER: genders,
        TINT: _tints(collection, Random(f"tint/{seed}"), sizes[TINT]),
    }
    return HeldOut(seed, pairs)


def _styles(pictures: Iterable[Picture], rng: Random, count: int) -> list[Pair]:
    """Choose subjects that several style families have, and one of these families for each.

    People are excluded, because their tones would show them, and so are flags and shapes.
    """
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
    """Choose one tone for each of several single people, except people of roles with a held-out gender."""
    found = {s.label for s in subjects if s.is_person and len(s.tones) == 1 and s.role not in taken}
    couples = {s.label for s in subjects if len(s.tones) > 1}
    return [Pair(label, rng.choice(TONES), label) for label in rng.sample(sorted(found - couples), count)]


def _colors(subjects: Iterable[Subject], rng: Random, count: int) -> list[Pair]:
    """Choose shapes in a color that other shapes have too, at most one shape per color.

    Black and white squares, which come in several sizes, are kept.
    """
    shapes: dict[str, set[str]] = defaultdict(set)
    fit: dict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        if subject.shape:
            shapes[subject.color].add(subject.shape)
        if subject.shape and subject.label == f"{subject.color} {subject.shape}":
            fit[subject.color].append(subject.shape)
    common = sorted(color for color in fit if len(shapes[color]) > 1)
    left = {color: sorted(shape for shape in fit[color] if (color, shape) not in REPEATED) for color in common}
    chosen = [(color, rng.choice(left[color])) for color in rng.sample(common, count)]
    return [Pair(shape, color, f"{color} {shape}") for color, shape in chosen]


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
