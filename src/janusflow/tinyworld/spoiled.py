"""Spoiled pictures: a scene under tiles of random colors, from nearly transparent to opaque.

Their texts remain those of the scene. A model then learns to read through the tiles where possible, and to give a
complete answer where it is not: a small model that has only seen clean pictures repeats one word for any other
(docs/log.md).
"""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILES = (2, 24)  # least and largest number per row and column


def spoil(rng: Random, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cover a picture with tiles of random colors and random strength, in a third of the cases completely.

    Args:
        rng: the only source of randomness.
        picture: (H, W, 3).
    """
    height, width = picture.shape[:2]
    rows, columns = rng.randint(*TILES), rng.randint(*TILES)
    colors = np.frombuffer(rng.randbytes(rows * columns * 3), np.uint8).reshape(rows, columns, 3)
    tiles = np.asarray(Image.fromarray(colors).resize((width, height), Image.Resampling.NEAREST), np.float32)
    strength = min(1.5 * rng.random(), 1.0)
    return np.round((1 - strength) * picture + strength * tiles).astype(np.uint8)
