"""The VAE's decoder in channels-last memory, or with only its latents in it, against contiguous memory, in turn.

python benchmarks/decoding.py                # a random decoder of the SDXL-VAE's size, 384 pixels
python benchmarks/decoding.py --width 32     # a quarter of its width
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


def sdxl_size(width: int = 128) -> AutoencoderKL:
    """Return the SDXL-VAE, or one of the same depth with another width of its first level, with random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        layers_per_block=2,
        sample_size=1024,
    )


def main(
    vae: Annotated[str | None, typer.Option(help="Model whose VAE is used.")] = None,
    width: Annotated[int, typer.Option(help="Channels of a random VAE's first level.")] = 128,
    side: Annotated[int | None, typer.Option(help="Side of the latents; 48 (shipped model: 16) by default.")] = None,
    dtype: str = "float32",
    batch: int = 1,
    repeats: int = 3,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Print medians of processor seconds (on a GPU: of wall-clock seconds) and the largest difference of pixels."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = sdxl_size(width) if vae is None else JanusFlow.from_pretrained(vae, progress=False).codec.vae
    model = model.eval().to(device, getattr(torch, dtype))
    side = side or (48 if vae is None else 16)
    latents = torch.randn(batch, 4, side, side).to(device, model.dtype)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {"contiguous": [], "channels_last": [], "only latents": []}
    pixels = {}
    for repeat in range(repeats + 1):
        for name, found in times.items():
            form = torch.channels_last if name == "channels_last" else torch.contiguous_format
            model.decoder.to(memory_format=form)
            given = latents.to(memory_format=torch.contiguous_format if name == "contiguous" else torch.channels_last)
            started = clock()
            with torch.inference_mode():
                pixels[name] = model.decode(given).sample.float().cpu()
            if repeat:
                found.append(clock() - started)
    first, expected = statistics.median(times["contiguous"]), pixels["contiguous"]
    for name, found in times.items():
        away = float((pixels[name] - expected).abs().max())
        median = statistics.median(found)
        print(f"{name:14} {median:.3f} s, {median / first:.2f} of contiguous, off by {away:.1e}", flush=True)


if __name__ == "__main__":
    typer.run(main)
