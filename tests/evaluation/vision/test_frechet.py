"""The Frechet distance against closed forms, and the preparation of pictures against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn

from janusflow.evaluation.vision.frechet import Features, frechet_distance, gaussian_distance, inception_pixels, square


class Tiny(nn.Module):
    """Stands for Inception: mean and spread of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], dim=1)[:, :, None, None] * self.scale


class WithLayers(nn.Module):
    """Stands for the FID tools' Inception, whose own forward takes other pixels than its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * 0


def save_inception(file: Path, model: nn.Module | None = None) -> Path:
    """A TorchScript file."""
    torch.jit.script(model or Tiny()).save(str(file))
    return file


def test_gaussians_in_closed_form() -> None:
    zero = np.zeros(2)
    assert gaussian_distance(
        np.zeros(1), np.full(1, 3.0), np.full((1, 1), 4.0), np.full((1, 1), 25.0)
    ) == pytest.approx(3**2 + (2 - 5) ** 2)
    assert gaussian_distance(zero, zero, np.diag([1.0, 9.0]), np.diag([4.0, 1.0])) == pytest.approx(1 + 4)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])  # the same for any basis
    turned = [turn @ np.diag(values) @ turn.T for values in ([1.0, 9.0], [4.0, 1.0])]
    assert gaussian_distance(zero, np.ones(2), *turned) == pytest.approx(2 + 1 + 4)


def test_general_covariances_as_by_the_matrix_root() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 6)), rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 1
    covs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covs[0] @ covs[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_fewer_pictures_than_features_are_no_harm() -> None:
    a = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 2) == pytest.approx(30 * 4, rel=1e-5)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    for a, b in (((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4,), (4,))):
        with pytest.raises(ValueError, match="expected 2 rows or more of one width"):
            frechet_distance(np.ones(a), np.ones(b))


def test_the_central_square() -> None:
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    found = square(picture, 16)
    assert found.size == (16, 16) and found.getcolors() == [(256, (0, 0, 255))]
    assert square(Image.new("RGB", (20, 60))).size == (256, 256)
    noise = Image.effect_noise((40, 40), 80).convert("RGB")
    assert square(noise, 16).tobytes() == noise.resize((16, 16), Image.Resampling.LANCZOS).tobytes()


def test_channels_are_resized_as_floats_and_cut_to_the_range() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[1:3, 1:3, 0], pixels[:, 2:, 1] = 255, 7
    found = inception_pixels(Image.fromarray(pixels), 9)
    assert found.shape == (3, 9, 9) and found.dtype == np.float32 and found[2].max() == 0
    bicubic = Image.fromarray(pixels[..., 0].astype(np.float32)).resize((9, 9), Image.Resampling.BICUBIC)
    raw = np.asarray(bicubic)
    assert raw.max() > 255 and raw.min() < 0, "bicubic overshoots here, so that the cut is seen"
    np.testing.assert_array_equal(found[0], raw.clip(0, 255))
    assert (found[1] % 1 != 0).any(), "nothing is rounded"
    assert inception_pixels(Image.new("RGB", (8, 8))).shape == (3, 299, 299)


def test_features_by_a_torchscript_file(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (30, 40), color) for color in ((0, 128, 255), (64, 64, 64))]
    features = Features.open(save_inception(tmp_path / "inception.pt"), device="cpu")(pictures)
    expected = [(-2, 0, 127 / 64, 0, 0, 0), (-1, -1, -1, 0, 0, 0)]
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-3)
    layered = Features.open(save_inception(tmp_path / "layered.pt", WithLayers()), device="cpu")(pictures)
    np.testing.assert_allclose(layered, expected, atol=1e-3)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; expected an Inception-v3"):
        Features.open(tmp_path / "no.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="bad.pt is not a TorchScript file"):
        Features.open(tmp_path / "bad.pt")
