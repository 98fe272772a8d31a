"""Publish a trained model: half the size, and float32 when it is opened."""

from __future__ import annotations

from pathlib import Path

import torch

from janusflow.device import cast
from janusflow.files import replace_folder, temporary_path
from janusflow.pipelines.janusflow import JanusFlow


def publish(trained: str | Path, folder: Path) -> Path:
    """Write a trained model for release, with its weights in bfloat16; it computes in float32.

    Args:
        trained: an export of `janusflow train`.
        folder: output folder; replaced if it exists.

    Example:
        >>> publish("runs/mine/export", Path("runs/mine/model"))  # doctest: +SKIP
        PosixPath('runs/mine/model')
    """
    model = JanusFlow.from_pretrained(trained, device="cpu")
    if model.family.separate_vae:
        cast(model.codec.vae, torch.bfloat16)
        if model.preview_decoder is not None:
            cast(model.small_decoder.module, torch.bfloat16)
    cast(model.network, torch.bfloat16)
    model.origin = None
    with temporary_path(folder) as temporary:
        temporary.mkdir()
        model.save_pretrained(temporary)
        model.network.config.dtype = "float32"
        model.network.config.save_pretrained(temporary)
        for file in temporary.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        replace_folder(temporary, folder)
    return folder
