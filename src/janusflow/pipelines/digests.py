"""Short digests by which weights, given pictures and generated ones are recognized again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from janusflow.processing.images import ImageSource, load_images, load_masks

if TYPE_CHECKING:
    from torch import nn

SAMPLED = 256  # values of each tensor that the digest of weights reads


def weights_digest(*modules: nn.Module) -> str:
    """A short digest of weights as they are in memory, adapters and all.

    It reads `SAMPLED` values spread over each tensor, so that it takes milliseconds; training changes them all.
    """
    from torch import nn

    digest = hashlib.sha256()
    for module in modules:
        for name, parameter in module.named_parameters():
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            if type(parameter) is nn.Parameter and not parameter.is_meta:  # others are quantized or not in memory
                flat = parameter.detach().flatten()
                digest.update(flat[:: max(1, flat.numel() // SAMPLED)].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def input_digests(argument: str, given: ImageSource | Sequence[ImageSource]) -> list[str]:
    """A short digest of each picture or mask that something is made from.

    Args:
        argument: "image": of the pixels, from files, bytes, arrays and PIL images alike, or of a tensor's values;
            "mask": of where it is bright.
        given: one or several.
    """
    if argument == "mask":
        return [short_digest(mask.shape, mask) for mask in load_masks(given)]
    listed: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    found = []
    for one in listed:
        if hasattr(one, "detach"):  # a tensor
            found += [
                short_digest(one.shape, part.cpu().float().numpy()) for part in (one if one.ndim == 4 else one[None])
            ]
        else:
            found += [short_digest(image.size, np.asarray(image)) for image in load_images(one)]
    return found


def pixels_digest(picture: Image.Image) -> str:
    """A short digest of the pixels of an RGB picture, by which edited copies are found."""
    return short_digest(picture.size, np.asarray(picture))


def short_digest(shape: Sequence[int], values: np.ndarray) -> str:
    return hashlib.sha256(f"{tuple(shape)}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
