"""A copy of the small checkpoint, to damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from janusflow import JanusFlowForConditionalGeneration
from janusflow.checkpoint import load_network, open_checkpoint


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small checkpoint, to damage."""
    return Path(shutil.copytree(small_folder, tmp_path / "checkpoint"))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def network(folder: Path) -> JanusFlowForConditionalGeneration:
    return load_network(open_checkpoint(folder), dtype=torch.float32, device=torch.device("cpu"))
