"""Train the shipped model's small decoder, for previews, from the VAE's decoder on scenes of the tiny world.

    python -m janusflow.tinyworld.decoder runs/decoder

The command writes the folder `preview_decoder` there. Copied into a model's folder, the decoder is used for previews,
and for pictures with `decoder="small"`. The command can be stopped at any time; repeat it to continue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import typer

from janusflow.device import CPU
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training.parts.decoder import decoder_config, fit_decoder
from janusflow.training.parts.fit import FitConfig
from janusflow.vae import PREVIEW_DECODER, SmallDecoder

BATCH = 16
HELD_OUT = 10**6  # step whose pictures are only used for measuring


def run(out: Path, *, model: str = "tiny", steps: int = 1000, width: int = 24, bank: int = 48) -> SmallDecoder:
    """Train the small decoder of a model's VAE, and write it to `out/preview_decoder` in bfloat16."""
    codec = JanusFlow.from_pretrained(model, device="cpu", dtype="float32").codec
    fitting = FitConfig(steps=steps, learning_rate=5e-3, warmup=min(30, steps), ema=0.99, optimizer="muon")

    small = fit_decoder(codec, decoder_config(codec, width=width), scenes, fitting, out, bank=bank)
    small.module.to(torch.bfloat16)
    small.save_pretrained(out / PREVIEW_DECODER)
    return small


def scenes(number: int, count: int = BATCH) -> torch.Tensor:
    """Return the pictures of a step as (B, 3, 64, 64) float32 in [-1, 1]."""
    source = TinyworldConfig().open("generation", 0, 0, 1)
    pictures = [np.asarray(source.record(number * BATCH + index).images[0]) for index in range(count)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def psnr(small: SmallDecoder, model: str = "tiny", pictures: int = 64) -> tuple[float, float]:
    """Return the PSNR of the small decoder and of the VAE, in decibels, on scenes that were not trained on."""
    codec = JanusFlow.from_pretrained(model, device="cpu", dtype="float32").codec
    pixels = scenes(HELD_OUT, pictures)
    latents = codec.encode(pixels)
    errors = [(decoder.decode(latents) - pixels).square().mean() / 4 for decoder in (small, codec)]
    return tuple(float(-10 * error.log10()) for error in errors)  # type: ignore[return-value]


def main(out: Path, model: str = "tiny", steps: int = 1000, width: int = 24, bank: int = 48) -> None:
    """Train the decoder, and print how close decoded scenes are to the rendered ones."""
    run(out, model=model, steps=steps, width=width, bank=bank)
    small = SmallDecoder.from_pretrained(out / PREVIEW_DECODER, dtype=torch.float32, device=CPU)
    found, vae = psnr(small, model)
    print(f"{out / PREVIEW_DECODER}: {found:.1f} dB, the VAE {vae:.1f} dB")


if __name__ == "__main__":
    typer.run(main)
