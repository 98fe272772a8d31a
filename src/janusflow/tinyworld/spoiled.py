"""Spoiled pictures: a scene seen through tiles of random colours, from a breath of them to nothing else.

What they are said to show stays the scene's. So a model reads through them as far as can be, and where nothing of a
scene is left it still speaks as of scenes, to an end: a small one that has only seen clean pictures says the same word
for ever of any other (docs/log.md).
"""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILES = (2, 24)  # of them in a row and in a column, at least and at most


def spoil(rng: Random, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture under tiles of random colours, as strong as chance has it; tiles alone in a third of them.

    Args:
        rng: the only source of chance.
        picture: (H, W, 3).
    """
    height, width = picture.shape[:2]
    rows, columns = rng.randint(*TILES), rng.randint(*TILES)
    colors = np.frombuffer(rng.randbytes(rows * columns * 3), np.uint8).reshape(rows, columns, 3)
    tiles = np.asarray(Image.fromarray(colors).resize((width, height), Image.Resampling.NEAREST), np.float32)
    strength = min(1.5 * rng.random(), 1.0)
    return np.round((1 - strength) * picture + strength * tiles).astype(np.uint8)
