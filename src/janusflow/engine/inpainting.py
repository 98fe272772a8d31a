"""Pictures that image to image and inpainting start from, and the pixels that they paste back.

Shapes: N pictures, (C, H, W) a latent, (height, width) = f (H, W) pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from janusflow.engine.size import Size
from janusflow.processing.images import ImageSource, load_image, load_images, load_mask, load_masks
from janusflow.vae import LatentCodec


@dataclass(frozen=True)
class KnownPicture:
    """What image to image and inpainting start from.

    Attributes:
        latents: (N, C, H, W), x_1 of the given pictures.
        repaint: (N, 1, H, W) in {0, 1}, 1 in cells that are regenerated; None regenerates everything.
    """

    latents: Tensor
    repaint: Tensor | None

    def select(self, rows: Tensor) -> KnownPicture:
        """Return only the given rows."""
        return KnownPicture(self.latents[rows], None if self.repaint is None else self.repaint[rows])


@dataclass(frozen=True)
class Kept:
    """Pixels that inpainting pastes back, because a cell of the latent is many pixels and the VAE changes all of them.

    Attributes:
        pixels: (N, height, width, 3) uint8, the given pictures after resizing and cropping.
        mask: (N, height, width, 1) bool, False where they are kept.
    """

    pixels: np.ndarray
    mask: np.ndarray

    def paste(self, pictures: np.ndarray) -> np.ndarray:
        """Paste the kept pixels into generated pictures, (N, height, width, 3) uint8 or floats in [0, 1]."""
        same = self.pixels if pictures.dtype == np.uint8 else (self.pixels / 255).astype(pictures.dtype)
        return np.where(self.mask, pictures, same)


def known_picture(
    codec: LatentCodec,
    size: Size,
    image: ImageSource | Sequence[ImageSource],
    mask: ImageSource | Sequence[ImageSource] | None,
    device: torch.device,
) -> tuple[KnownPicture, Kept | None]:
    """Encode the pictures (and masks) to start from, one per generated picture; also return what a mask keeps.

    Args:
        codec: encodes the pictures.
        size: size of the request.
        image: pictures, or latents of this request's size, (N, C, H, W).
        mask: bright where pictures are regenerated, or None.
        device: device of the latents.
    """
    given = _as_latents(image, (codec.channels, size.height // codec.downscale, size.width // codec.downscale))
    if given is None:
        pixels = [fit_picture(picture, size.height, size.width) for picture in load_images(image)]
        given = [codec.encode(one[None])[0] for one in pixels]
    else:
        if not all(torch.isfinite(one).all() for one in given):
            raise ValueError("image holds latents that are not finite")
        pixels = [] if mask is None else [codec.decode(one[None])[0].cpu() for one in given]
    latents = size.one_each("image", given).to(device)
    if mask is None:
        return KnownPicture(latents, None), None
    masks = size.one_each("mask", [fit_mask(one, size.height, size.width) for one in load_masks(mask)])
    if not masks.any():
        warnings.warn("the mask is bright nowhere, so nothing is generated anew", stacklevel=6)
    kept = ((size.one_each("image", pixels) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return (
        KnownPicture(latents, latent_mask(masks, codec.downscale).to(device)),
        Kept(kept, masks.bool().permute(0, 2, 3, 1).numpy()),
    )


def _as_latents(image: Any, shape: tuple[int, int, int]) -> list[Tensor] | None:
    """Return given latents one by one, or None if pictures are given.

    Raises:
        ValueError: for latents of another size; values outside [0, 1] tell them from pictures with an alpha channel.
    """
    listed = list(image) if isinstance(image, (list, tuple)) else [image]
    tensors = [one for one in listed if isinstance(one, Tensor) and one.ndim in (3, 4)]
    for one in tensors:
        if one.shape[-3:] != shape and one.shape[-3] == shape[0] and (one.min() < 0 or one.max() > 1):
            raise ValueError(f"image holds latents of {tuple(one.shape[-3:])}; those of this request are {shape}")
    if not listed or len(tensors) < len(listed) or any(one.shape[-3:] != shape for one in tensors):
        return None
    return [latent.float() for one in listed for latent in (one if one.ndim == 4 else one[None])]


def fit_picture(source: ImageSource, height: int, width: int) -> Tensor:
    """Resize a picture to cover (height, width) and crop it in the middle: (3, height, width) in [-1, 1]."""
    image = load_image(source)
    if image.size != (width, height):
        box = _middle(image.height, image.width, height, width)
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def fit_mask(source: ImageSource, height: int, width: int) -> Tensor:
    """Resize a mask to (1, height, width) in {0, 1}; a pixel is 1 if any of its source pixels is bright.

    The mask is cropped as `fit_picture` crops a picture of the same size.
    """
    bright = load_mask(source)
    left, top, right, bottom = _middle(bright.shape[0], bright.shape[1], height, width)
    cropped = bright[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    return F.adaptive_max_pool2d(torch.from_numpy(cropped.astype(np.float32))[None], (height, width))


def latent_mask(masks: Tensor, cell: int) -> Tensor:
    """Pool masks (N, 1, height, width) to the latent grid, (N, 1, H, W): a cell with any bright pixel is 1."""
    return F.max_pool2d(masks, cell)


def _middle(source_height: int, source_width: int, height: int, width: int) -> tuple[float, float, float, float]:
    """Return the largest box with the aspect ratio of (height, width) in the middle: left, top, right, bottom."""
    scale = min(source_height / height, source_width / width)
    left, top = (source_width - width * scale) / 2, (source_height - height * scale) / 2
    return max(left, 0), max(top, 0), min(left + width * scale, source_width), min(top + height * scale, source_height)
