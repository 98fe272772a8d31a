"""Measure a picture from its pixels, without any network: background, and color, place and size of what it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from janusflow.evaluation.spread import OTHER
from janusflow.pictograms.render import BACKGROUNDS

SIDE = 64  # side in pixels of the measured pictures
RIM = 2  # width in pixels of the border, which shows the background
BACKGROUND_DISTANCE = 22.0  # RGB distance within which a border counts as a background; the nearest two are 51 apart
FOREGROUND_DISTANCE = 30.0  # RGB distance from the border's color beyond which a pixel is drawn
LEAST = 16  # drawn pixels; with fewer the picture is empty
COLORS = {
    "red": (214, 40, 44),
    "orange": (243, 134, 32),
    "yellow": (250, 206, 60),
    "green": (84, 160, 60),
    "blue": (52, 120, 214),
    "purple": (132, 74, 190),
    "pink": (240, 120, 170),
    "brown": (132, 84, 56),
    "black": (32, 32, 36),
    "grey": (140, 146, 152),
    "white": (246, 246, 246),
}
OFFSET = 1 / 32  # share of the side; a place farther from the middle is not "center"
SIZES = {"small": 0.55, "medium": 0.75, "large": 1.01}  # upper limits of the bounding box's share of the picture
CELLS = 6  # cells of a histogram along each axis


@dataclass(frozen=True)
class Reading:
    """The measurements of a picture, each a bin or `OTHER`.

    Attributes:
        background: key of `BACKGROUNDS` that is nearest to the median of the border.
        color: key of `COLORS` that is nearest for most drawn pixels.
        place: place of the middle of the bounding box: "center", "left", "top right", ...
        size: key of `SIZES`, by the area of the bounding box.
    """

    background: str = OTHER
    color: str = OTHER
    place: str = OTHER
    size: str = OTHER


FACTORS = ("color", "place", "size", "background")


def read(picture: Image.Image) -> Reading:
    """Return the measurements of a picture."""
    image = _array(picture)
    drawn, background = _drawn(image)
    if drawn.sum() < LEAST:
        return Reading(background)
    names = list(COLORS)
    palette = np.array([COLORS[name] for name in names], np.float32)
    nearest = np.linalg.norm(image[drawn][:, None] - palette, axis=-1).argmin(1)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    share = (bottom - top) * (right - left) / SIDE**2
    size = next(name for name, most in SIZES.items() if share < most)
    place = f"{_side(top + bottom, 'top', 'bottom')} {_side(left + right, 'left', 'right')}".strip() or "center"
    return Reading(background, names[int(np.bincount(nearest).argmax())], place, size)


def nearest_color(picture: Image.Image, palette: dict[str, tuple[int, int, int]]) -> str:
    """Return the palette color of a one-color drawing: the nearest to the median of the most strongly drawn pixels."""
    image = _array(picture)
    drawn, _ = _drawn(image)
    if drawn.sum() < LEAST:
        return OTHER
    distance = np.linalg.norm(image - _border(image), axis=-1)
    inner = drawn & (distance >= 0.8 * np.percentile(distance[drawn], 90))
    color = np.median(image[inner], axis=0)
    return min(palette, key=lambda name: float(np.linalg.norm(color - np.array(palette[name], np.float32))))


def histogram(picture: Image.Image) -> np.ndarray:
    """Return shares of drawn pixels by color (216,), each pixel spread over the eight nearest of 6 x 6 x 6 cells."""
    image = _array(picture)
    drawn, _ = _drawn(image)
    return _spread(image[drawn])


def palette(picture: Image.Image) -> np.ndarray:
    """Return shares of all pixels by color (216,), as in `histogram`."""
    return _spread(_array(picture).reshape(-1, 3))


def _spread(colors: np.ndarray) -> np.ndarray:
    """Return the shares (216,) of colors (N, 3) over the cells of a cube; zeros if there are no colors."""
    places = colors / 255 * (CELLS - 1)
    low = np.minimum(places.astype(int), CELLS - 2)
    found = np.zeros(CELLS**3)
    for corner in np.ndindex(2, 2, 2):
        weights = np.where(corner, places - low, 1 - places + low).prod(1)
        cells = np.ravel_multi_index(tuple((low + corner).T), (CELLS,) * 3)
        found += np.bincount(cells, weights, minlength=CELLS**3)
    return (found / max(found.sum(), 1e-9)).astype(np.float32)


def _array(picture: Image.Image) -> np.ndarray:
    picture = picture.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32)


def _border(image: np.ndarray) -> np.ndarray:
    rim = np.ones(image.shape[:2], bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    color: np.ndarray = np.median(image[rim], axis=0)
    return color


def _drawn(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Return which pixels differ from the border, and the name of the border's color."""
    border = _border(image)
    distances = {name: float(np.linalg.norm(border - np.array(rgb))) for name, rgb in BACKGROUNDS.items()}
    name = min(distances, key=lambda one: distances[one])
    drawn = np.linalg.norm(image - border, axis=-1) > FOREGROUND_DISTANCE
    return drawn, name if distances[name] <= BACKGROUND_DISTANCE else OTHER


def _side(twice: int, low: str, high: str) -> str:
    offset = twice / 2 / SIDE - 0.5
    return low if offset < -OFFSET else high if offset > OFFSET else ""
