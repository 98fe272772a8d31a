"""Shared fixtures: the golden checkpoint, a small VAE, and the shipped model."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from janusflow import JanusFlow, presets
from janusflow.presets import PRESETS

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_CACHE=tempfile.mkdtemp(prefix="datasets-"))
os.environ.update(RAY_worker_niceness="0")  # 15 by default: the other tests would leave Ray's workers nothing
constants.HF_HUB_OFFLINE = True  # read from the environment when huggingface_hub was imported above
torch.set_num_threads(1)  # the tests' tensors are small; threads would only wait for each other

GOLDEN = Path(os.environ.get("JANUSFLOW_GOLDEN", Path(__file__).parent / "golden"))
TOLERANCE = 3e-5  # of max(1, max|expected|): what tests/golden/README.md states


@dataclass(frozen=True)
class Golden:
    """A golden folder and what the official code answers for it."""

    folder: Path
    tensors: dict[str, Tensor]
    cases: dict[str, Any]

    @property
    def conversations(self) -> list[list[dict[str, Any]]]:
        """The conversations with their pictures as full paths."""
        return [
            [{**message, "images": [self.folder / name for name in message.get("images", [])]} for message in messages]
            for messages in self.cases["conversations"]
        ]


def golden_folders(pattern: str = "janusflow-*") -> list[Path]:
    """Golden folders of one family; set JANUSFLOW_GOLDEN to test against others."""
    return sorted(folder for folder in GOLDEN.glob(pattern) if (folder / "expected.json").is_file())


def error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation, on the scale that the golden tolerance is given on."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


@pytest.fixture(scope="session", params=golden_folders(), ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    folder = request.param
    cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return Golden(folder, load_file(folder / "expected.safetensors"), cases)


@pytest.fixture(scope="session")
def golden_model(golden: Golden) -> JanusFlow:
    return JanusFlow.from_pretrained(golden.folder, device="cpu")


@pytest.fixture
def mutable_model(golden: Golden) -> JanusFlow:
    """A golden model of the test's own, to break."""
    return JanusFlow.from_pretrained(golden.folder, device="cpu")


@pytest.fixture(scope="session")
def small_folder() -> Path:
    """A small checkpoint in the official layout, random weights."""
    return Path(__file__).parent / "golden" / "janusflow-small-a"


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VAE of factor 8 with the SDXL-VAE's four latent channels."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )
    folder = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(small_folder: Path, vae_folder: Path) -> JanusFlow:
    """The small checkpoint with the random VAE: quick, and able to do everything."""
    return JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")


@pytest.fixture(scope="session")
def tiny_model() -> JanusFlow:
    """The shipped model."""
    return JanusFlow.from_pretrained("tiny", device="cpu")


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of three steps where no number is given: for examples whose pictures nobody judges."""
    exact = replace(PRESETS["exact"], num_inference_steps=3)
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType({**PRESETS, "exact": exact}))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture file of 40 x 24 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).save(file)
    return file
