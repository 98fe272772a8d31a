"""Regions: boxes of a picture with texts of their own, from which a tower learns what is where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REGIONS_COLUMN = "regions"


@dataclass(frozen=True)
class Region:
    """A box with a text, such as "a small red circle". Its sides are shares of the picture's width and height."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def cropped(self, width: int, height: int) -> Region | None:
        """Return the region as shares of the centered square of a picture, or None if it lies outside."""
        side = min(width, height)
        left, right = (_inside((share * width - (width - side) / 2) / side) for share in (self.left, self.right))
        top, bottom = (_inside((share * height - (height - side) / 2) / side) for share in (self.top, self.bottom))
        return Region(self.text, left, top, right, bottom) if left < right and top < bottom else None


def read_regions(value: Any, name: str) -> tuple[Region, ...]:
    """Read the column `regions`, a list of `{"text": ..., "box": [left, top, right, bottom]}`.

    Raises:
        ValueError: if it is not such a list, or a box is empty or not within 0 and 1.
    """
    if value is None:
        return ()
    expected = f'{name} has a malformed region; expected {{"text": ..., "box": [left, top, right, bottom]}} in shares'
    if not isinstance(value, list | tuple):
        raise ValueError(f"{expected} of the picture's sides, in a list")
    return tuple(_region(one, f"{expected} of the picture's sides, not {one!r:.80}") for one in value)


def _region(value: Any, malformed: str) -> Region:
    text, box = (value.get("text"), value.get("box")) if isinstance(value, Mapping) else (None, None)
    sides = list(box) if isinstance(box, list | tuple) else []
    numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in sides)
    if not isinstance(text, str) or not text.strip() or len(sides) != 4 or not numbers:
        raise ValueError(malformed)
    left, top, right, bottom = sides
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(malformed)
    return Region(text.strip(), left, top, right, bottom)


def _inside(share: float) -> float:
    return min(max(share, 0.0), 1.0)
