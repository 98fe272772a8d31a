"""Prepare pictures for f_enc: resize, pad to a square, normalize. The next step is `model/` (f_enc).

Shapes: S is `ImageSettings.image_size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
import torch
from annotated_types import Interval, Len
from PIL import Image
from torch import Tensor

Pixels: TypeAlias = Annotated[int, Interval(ge=1, le=2**12)]


@dataclass(frozen=True)
class ImageSettings:
    """Settings that turn pictures into pixels, stored in `preprocessor_config.json`.

    Attributes:
        image_size: side of the square input of f_enc.
        min_size: minimum length of the short side after resizing.
        image_mean, image_std: mean and deviation per channel, of values in [0, 1].
        rescale_factor: 1/255.
        do_normalize: whether mean and deviation are applied.
    """

    image_size: Pixels
    min_size: Pixels = 14
    image_mean: Annotated[tuple[Annotated[float, Interval(ge=0, le=1)], ...], Len(3, 3)] = (0.5, 0.5, 0.5)
    image_std: Annotated[tuple[Annotated[float, Interval(ge=1e-6, le=1e6)], ...], Len(3, 3)] = (0.5, 0.5, 0.5)
    rescale_factor: Annotated[float, Interval(ge=1e-6, le=1)] = 1 / 255
    do_normalize: bool = True

    def __post_init__(self) -> None:
        if self.min_size > self.image_size:
            raise ValueError(f"min_size is {self.min_size}, larger than image_size ({self.image_size})")

    @property
    def background(self) -> tuple[int, ...]:
        """The color that pads a picture to a square: the mean, truncated to 8 bits."""
        return tuple(int(mean * 255) for mean in self.image_mean)


def to_pixels(image: Image.Image, settings: ImageSettings) -> Tensor:
    """Resize the long side to S (bicubic, antialiased, sides truncated), pad the rest, and normalize.

    Args:
        image: RGB picture; see `janusflow.processing.images.load_image`.

    Returns:
        (3, S, S) float32.

    Example:
        >>> to_pixels(Image.new("RGB", (200, 100), "white"), ImageSettings(64)).shape
        torch.Size([3, 64, 64])
    """
    size, longest = settings.image_size, max(image.size)
    width, height = (max(int(side / longest * size), settings.min_size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (max(width, height),) * 2, settings.background)
    square.paste(image, ((square.width - width) // 2, (square.height - height) // 2))
    pixels = np.asarray(square, dtype=np.float64) * settings.rescale_factor
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    if settings.do_normalize:
        mean, std = (
            torch.tensor(value, dtype=values.dtype, device=values.device).view(3, 1, 1)
            for value in (settings.image_mean, settings.image_std)
        )
        values = (values - mean) / std
    return values.contiguous()
