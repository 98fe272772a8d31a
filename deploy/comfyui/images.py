"""Convert between ComfyUI's tensors and janusflow's arrays, and make a seed for each picture of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SEEDS = 2**64  # ComfyUI's seeds are 0 to 2^64 - 1, like those of janusflow


def as_pictures(image: Tensor) -> list[np.ndarray]:
    """Return an IMAGE as arrays (height, width, 3); other nodes may leave values a little outside of [0, 1]."""
    return list(image[..., :3].detach().float().cpu().clamp(0, 1).numpy())


def as_masks(mask: Tensor) -> list[np.ndarray]:
    """Return a MASK as arrays (height, width); a single one may lack the axis of the batch."""
    batch = mask if mask.ndim == 3 else mask[None]
    return list(batch.detach().float().cpu().clamp(0, 1).numpy())


def as_image(pictures: np.ndarray) -> Tensor:
    """Return pictures (N, height, width, 3) in [0, 1] as an IMAGE."""
    return torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))


def following(seed: int, count: int) -> list[int]:
    """Return a seed for each of `count` pictures; 0 follows the largest."""
    return [(seed + picture) % SEEDS for picture in range(count)]
