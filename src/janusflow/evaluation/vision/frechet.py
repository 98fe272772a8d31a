"""The Frechet distance between two sets of pictures (FID, arXiv 1706.08500), over any feature model.

Pictures are prepared as for the paper's figure (GigaGAN's way, with clean-fid's resizing). Both sets are cropped to
their central square and resized to 256 x 256 with PIL's Lanczos. Each channel is then resized as floats, without
rounding, to 299 x 299 with PIL's bicubic, and clipped to [0, 255].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janusflow.device import CPU, resolve_device
from janusflow.evaluation.vision.manifolds import check_features

EVAL_SIZE, INCEPTION_SIZE = 256, 299  # pixels
MIDDLE = 128.0  # pixel value: offset and scale of Inception's input


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance between two sets of features, each modelled as a Gaussian.

    Args:
        a, b: (N, D) and (M, D), at least two rows each.

    Raises:
        ValueError: if a set is too small or their widths differ.
    """
    check_features(a, b, 2)
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (a, b))
    return gaussian_distance(a.mean(0), b.mean(0), *covariances)


def gaussian_distance(mean_a: np.ndarray, mean_b: np.ndarray, cov_a: np.ndarray, cov_b: np.ndarray) -> float:
    """Return |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians, in float64.

    The trace of the root is the sum of the square roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2). This matrix is
    symmetric, so no complex values occur, and singular covariances are harmless.

    Args:
        mean_a, mean_b: (D,).
        cov_a, cov_b: (D, D), symmetric, without negative eigenvalues.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = root @ cov_b @ root
    roots = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots)


def square(picture: Image.Image, size: int = EVAL_SIZE) -> Image.Image:
    """Crop a picture to its central square and resize that to size x size with Lanczos."""
    picture = picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)


def inception_pixels(picture: Image.Image, size: int = INCEPTION_SIZE) -> np.ndarray:
    """Return a picture as (3, size, size) float32 in [0, 255]; each channel is resized as floats, without rounding."""
    channels = np.asarray(picture.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)
    resized = [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in channels]
    return np.stack([np.asarray(one) for one in resized]).clip(0, 255)


class Features:
    """Feature vectors of pictures from a TorchScript model.

    The model, or its part `layers` if it has one (as the Inception of the FID tools does), takes (N, 3, 299, 299)
    float32 in [-1, 1), and returns N vectors.

    Args:
        eval_size: side in pixels that pictures are first resized to.
    """

    def __init__(self, model: Any, eval_size: int = EVAL_SIZE) -> None:
        self.model, self.eval_size = model.eval(), eval_size

    @classmethod
    def open(cls, file: Path, *, device: str = "auto", eval_size: int = EVAL_SIZE) -> Features:
        """Open a model from a TorchScript file.

        Raises:
            ValueError: if the file does not exist or is not TorchScript.
        """
        import torch

        wanted = "an Inception-v3 as a TorchScript file, such as inception-2015-12-05.pt of the FID tools"
        if not file.is_file():
            raise ValueError(f"{file} does not exist; expected {wanted}")
        try:
            return cls(torch.jit.load(str(file), map_location=resolve_device(device)), eval_size)
        except RuntimeError as error:
            raise ValueError(f"{file} is not a TorchScript file; expected {wanted}") from error

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the features of N pictures: (N, D) float32."""
        import torch

        pixels = np.stack([inception_pixels(square(picture, self.eval_size)) for picture in pictures])
        device = next((value.device for value in self.model.state_dict().values()), CPU)
        values = (torch.from_numpy(pixels).to(device) - MIDDLE) / MIDDLE
        with torch.inference_mode():
            found = getattr(self.model, "layers", self.model)(values)
        vectors: np.ndarray = found.float().reshape(len(pictures), -1).cpu().numpy()
        return vectors
