"""A picture to start from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def scene() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
