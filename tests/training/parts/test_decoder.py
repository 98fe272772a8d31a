"""The small decoder learns to decode as the VAE does, and a run that was stopped continues to the same weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from janusflow.training.parts.decoder import decoder_config, fit_decoder
from janusflow.training.parts.fit import FitConfig
from janusflow.vae import LatentCodec, SmallDecoder


def pictures(number: int) -> Tensor:
    """Smooth pictures: blocks of 16 pixels."""
    colors = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(number)) * 2 - 1
    return colors.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)


def fitted(vae: Path, folder: Path, steps: int) -> SmallDecoder:
    codec = LatentCodec.from_pretrained(vae, dtype=torch.float32, device=torch.device("cpu"))
    fitting = FitConfig(steps=steps, learning_rate=1e-2, warmup=1, schedule="constant", ema=0.5, optimizer="muon")
    return fit_decoder(codec, decoder_config(codec, width=8, blocks=1), pictures, fitting, folder, bank=2, batch=4)


def test_it_comes_nearer_to_the_vae_and_continues(vae_folder: Path, tmp_path: Path) -> None:
    codec = LatentCodec.from_pretrained(vae_folder, dtype=torch.float32, device=torch.device("cpu"))
    latents = codec.encode(pictures(9))
    first, last = (fitted(vae_folder, tmp_path / str(steps), steps).decode(latents) for steps in (1, 40))
    wanted = codec.decode(latents)
    assert float((last - wanted).abs().mean()) < 0.5 * float((first - wanted).abs().mean())
    fitted(vae_folder, tmp_path / "stopped", 20)
    again = fitted(vae_folder, tmp_path / "stopped", 40).decode(latents)
    torch.testing.assert_close(again, last)
