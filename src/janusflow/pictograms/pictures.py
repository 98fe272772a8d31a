"""The pictures of a data set: drawings in a style, and Phosphor's also in a color."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from janusflow.pictograms.catalogue import NAMES, SOURCES, STYLES, Package, Source, Style
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.names import Subject, read_names
from janusflow.pictograms.readers import WEIGHTS, Drawing, read_drawings
from janusflow.pictograms.render import TINTS

PHOSPHOR = "phosphor"


@dataclass(frozen=True)
class Picture:
    """One drawing as it is rendered, without the background.

    Attributes:
        drawing: what is drawn.
        style: style of the drawing.
        source: name of the source.
        tint: name of the color of a one-color drawing, a key of `TINTS`, or "".
    """

    drawing: Drawing
    style: Style
    source: str
    tint: str = ""

    @property
    def subject(self) -> Subject:
        """What the picture shows."""
        return self.drawing.subject

    @property
    def weight(self) -> str:
        """Weight of Phosphor's lines, or ""."""
        return self.drawing.weight

    @property
    def id(self) -> str:
        """Unique id in a data set, the same in all data sets: `flat/1f98a`, `phosphor/ph-acorn/bold/green`."""
        return "/".join(part for part in (self.style.name, self.subject.id, self.weight, self.tint) if part)


@dataclass
class Collection:
    """All drawings of some sources.

    Attributes:
        names: subjects of emoji by id.
        drawings: drawings by source.
        skipped: number of files left out, by source and reason.
        packages: packages that were read.
    """

    names: dict[str, Subject]
    drawings: dict[str, list[Drawing]] = field(default_factory=dict)
    skipped: dict[str, Counter[str]] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)

    def pictures(self) -> list[Picture]:
        """Return all pictures except Phosphor's, whose colors are chosen in `tinted`."""
        sources = [source for source in SOURCES if source.name in self.drawings and source.style != PHOSPHOR]
        return [
            Picture(drawing, STYLES[source.style], source.name)
            for source in sources
            for drawing in self.drawings[source.name]
        ]

    def icons(self) -> dict[str, dict[str, Drawing]]:
        """Return Phosphor's drawings by subject and weight, only for subjects that have all weights."""
        found: dict[str, dict[str, Drawing]] = defaultdict(dict)
        for drawing in self.drawings.get(PHOSPHOR, []):
            found[drawing.subject.id][drawing.weight] = drawing
        return {icon: weights for icon, weights in sorted(found.items()) if len(weights) == len(WEIGHTS)}


def collect(styles: Sequence[str], downloads: Downloads) -> Collection:
    """Read the packages of some styles.

    Args:
        styles: names of `STYLES`.
        downloads: where packages come from.

    Raises:
        ValueError: if a package cannot be downloaded or read.
    """
    collection = Collection(read_names(downloads.fetch(NAMES)), packages=[NAMES])
    for source in sources_of(styles):
        skipped = collection.skipped.setdefault(source.name, Counter())
        file = downloads.fetch(source.package)
        collection.drawings[source.name] = read_drawings(source.reader, file, collection.names, skipped)
        collection.packages.append(source.package)
    return collection


def sources_of(styles: Sequence[str]) -> list[Source]:
    """Return the sources of some styles, in the order of the catalogue."""
    return [source for source in SOURCES if source.style in styles]


def tinted(
    icons: dict[str, dict[str, Drawing]], *, number: int, seed: int, wanted: dict[str, tuple[str, str]]
) -> list[Picture]:
    """Return Phosphor's icons in some weights and colors.

    Args:
        icons: drawings by subject and weight.
        number: number of different combinations of weight and color per subject.
        seed: seed of the choice.
        wanted: held-out weight and color by subject. The result includes this picture, the same subject in that
            color and another weight, and, if `number` is above 1, in that weight and another color.
    """
    found = []
    for icon, weights in icons.items():
        rng = Random(f"tints/{seed}/{icon}")
        pairs = [(weight, tint) for weight in weights for tint in TINTS]
        chosen = rng.sample(pairs, number)
        if icon in wanted:
            weight, tint = wanted[icon]
            others = [(rng.choice([w for w in WEIGHTS if w != weight]), tint)]
            others.append((weight, rng.choice([name for name in TINTS if name != tint])))
            chosen = [wanted[icon], *dict.fromkeys([*others, *(pair for pair in chosen if pair != wanted[icon])])]
            chosen = chosen[: number + 1]
        found += [Picture(weights[weight], STYLES[PHOSPHOR], PHOSPHOR, tint) for weight, tint in chosen]
    return found
