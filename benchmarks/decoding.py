"""The VAE's decoder in channels-last memory against contiguous, in turn: time and largest difference.

python benchmarks/decoding.py                # a random decoder of the SDXL-VAE's size, 384 pixels
python benchmarks/decoding.py --vae tiny     # the shipped model's, 64 pixels
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL

from janusflow import JanusFlow


def sdxl_size() -> AutoencoderKL:
    """The SDXL-VAE with random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=1024,
    )


def main(
    vae: Annotated[str | None, typer.Option(help="A model whose VAE is taken.")] = None,
    dtype: str = "float32",
    batch: int = 1,
    repeats: int = 3,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Print medians of seconds of the process (on a GPU: of the clock) and the largest difference of pixels."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = sdxl_size() if vae is None else JanusFlow.from_pretrained(vae, progress=False).codec.vae
    model = model.eval().to(device, getattr(torch, dtype))
    side = 48 if vae is None else 16
    latents = torch.randn(batch, 4, side, side).to(device, model.dtype)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {"contiguous": [], "channels_last": []}
    pixels = {}
    for repeat in range(repeats + 1):
        for name, found in times.items():
            form = torch.channels_last if name == "channels_last" else torch.contiguous_format
            model.decoder.to(memory_format=form)
            started = clock()
            with torch.inference_mode():
                pixels[name] = model.decode(latents.to(memory_format=form)).sample.float().cpu()
            if repeat:
                found.append(clock() - started)
    away = float((pixels["contiguous"] - pixels["channels_last"]).abs().max())
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = medians["channels_last"] / medians["contiguous"]
    shown = ", ".join(f"{name} {value:.3f} s" for name, value in medians.items())
    print(f"{shown}, ratio {ratio:.2f}, off by {away:.1e}")


if __name__ == "__main__":
    typer.run(main)
