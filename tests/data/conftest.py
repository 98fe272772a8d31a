"""A folder of pictures to prepare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.data.prepare import PrepareConfig

CAPTION = "A plain picture. It has one colour. Nothing else is in it."


def picture(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty good pictures, and one of every kind that is dropped."""
    place = tmp_path / "raw"
    place.mkdir()
    for number in range(20):
        picture(number).save(place / f"good-{number:02d}.png")
        (place / f"good-{number:02d}.txt").write_text(CAPTION)
    picture(3).resize((128, 96), Image.Resampling.BICUBIC).save(place / "x-duplicate.jpg", quality=80)
    picture(50, (20, 60)).save(place / "x-small.png")
    picture(51, (300, 40)).save(place / "x-wide.png")
    (place / "x-broken.png").write_bytes(b"broken")
    picture(52).save(place / "x-nocaption.png")
    for name in ("x-duplicate", "x-small", "x-wide", "x-broken"):
        (place / f"{name}.txt").write_text(CAPTION)
    return place


def settings(**changes: object) -> PrepareConfig:
    return PrepareConfig(**{"min_side": 32, "max_aspect": 3.0, "shard_size": 6, **changes})  # type: ignore[arg-type]
