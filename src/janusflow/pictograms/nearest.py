"""Find the training pictures that are nearest to a generated one, to tell memorization from generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from janusflow.pictograms.targets import Columns
from janusflow.pipelines.sheet import contact_sheet
from janusflow.processing.images import load_image
from janusflow.progress import progress_bar

SIDE = 16  # side in pixels of the compared pictures
COPY = 0.03  # root mean square difference, for values in [0, 1], below which a picture counts as a copy
SHOWN, BESIDE, CELL = 24, 3, 64  # samples on a sheet, training pictures next to each, side of a picture in pixels


@dataclass(frozen=True)
class Near:
    """A training picture.

    Attributes:
        id: id of the picture.
        distance: root mean square difference over 16 x 16 pixels and three channels, for values in [0, 1].
    """

    id: str
    distance: float


class Training:
    """All pictures that training sees, reduced in size, to be searched.

    Args:
        pictures: rows from `read_pictures`; held-out ones are left out.
    """

    def __init__(self, pictures: Sequence[Columns]) -> None:
        self.rows = [row for row in pictures if not row["held_out"]]
        vectors = []
        with progress_bar("reading training pictures", len(self.rows)) as advance:
            for row in self.rows:
                vectors.append(small(load_image(row["image"]["bytes"])))
                advance()
        self.vectors = np.stack(vectors)
        self.squares = (self.vectors**2).sum(1)

    def nearest(self, picture: Image.Image, count: int = BESIDE) -> list[Near]:
        """Return the nearest pictures, nearest first."""
        vector = small(picture)
        distances = self.squares - 2 * self.vectors @ vector + (vector**2).sum()
        order = np.argsort(distances, kind="stable")[:count]
        return [Near(str(self.rows[n]["id"]), float(np.sqrt(max(distances[n], 0) / vector.size))) for n in order]


def small(picture: Image.Image) -> np.ndarray:
    """Return a picture, reduced in size, as (768,) float32 in [0, 1]."""
    resized = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(resized, np.float32).ravel() / 255


def nearest_sheet(
    samples: Sequence[tuple[Image.Image, str, Sequence[Near]]], pictures: Sequence[Columns]
) -> Image.Image:
    """Return a sheet of samples, each in a row with its nearest training pictures.

    Args:
        samples: for each sample, the picture, its prompt, and the nearest training pictures.
        pictures: rows from `read_pictures`.
    """
    by_id = {str(row["id"]): row for row in pictures}
    shown, labels = [], []
    for picture, prompt, near in samples:
        found = [load_image(by_id[one.id]["image"]["bytes"]) for one in near]
        shown += [one.convert("RGB").resize((CELL, CELL)) for one in (picture, *found)]
        labels += [prompt[:90], *(f"{one.id} {one.distance:.3f}" for one in near)]
    return contact_sheet(shown, labels, columns=1 + BESIDE)
