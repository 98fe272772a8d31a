"""Short digests that identify weights, input pictures and generated pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from janusflow.processing.images import ImageSource, load_images, load_masks

if TYPE_CHECKING:
    from torch import nn

SAMPLED = 256  # values that the digest of weights reads from each tensor


def weights_digest(*modules: nn.Module) -> str:
    """Return a short digest of weights as they are in memory, adapters included.

    It reads `SAMPLED` values spread over each tensor, which takes milliseconds; training changes all of them.
    """
    from torch import nn

    digest = hashlib.sha256()
    for module in modules:
        for name, parameter in module.named_parameters():
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            if type(parameter) is nn.Parameter and not parameter.is_meta:  # others are quantized or not in memory
                flat = parameter.detach().flatten()
                digest.update(flat[:: max(1, flat.numel() // SAMPLED)].cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]


def input_digests(argument: str, given: ImageSource | Sequence[ImageSource]) -> list[str]:
    """Return a short digest of each input picture or mask.

    Args:
        argument: "image" digests the pixels, whether from files, bytes, arrays or PIL images, or a tensor's values;
            "mask" digests where the mask is bright.
        given: one or several pictures or masks.
    """
    if argument == "mask":
        return [short_digest(mask.shape, mask) for mask in load_masks(given)]
    listed: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    found = []
    for one in listed:
        if hasattr(one, "detach"):  # a tensor
            parts = one if one.ndim == 4 else one[None]
            found += [short_digest(part.shape, part.cpu().float().numpy()) for part in parts]
        else:
            found += [short_digest(image.size, np.asarray(image)) for image in load_images(one)]
    return found


def pixels_digest(picture: Image.Image) -> str:
    """Return a short digest of the pixels of an RGB picture, which reveals edited copies."""
    return short_digest(picture.size, np.asarray(picture))


def short_digest(shape: Sequence[int], values: np.ndarray) -> str:
    return hashlib.sha256(f"{tuple(shape)}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
