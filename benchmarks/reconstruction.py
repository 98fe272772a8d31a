"""What a model's VAE loses on pictograms that it never saw: an upper bound on the quality that the model can generate.

python benchmarks/reconstruction.py --model runs/pictograms/parts/export --data data/pictograms
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from pyarrow import feather

from janusflow.data.samples import square
from janusflow.pipelines.janusflow import JanusFlow

BATCH = 64


def main(
    model: Annotated[str, typer.Option(help="'tiny', a folder or a hub id.")],
    data: Annotated[Path, typer.Option(help="Data set of pictograms, with held_out.feather.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print the number of pictures, the mean absolute difference in levels of 255, and PSNR in dB for each style."""
    pipeline = JanusFlow.from_pretrained(model, device=device)
    side = pipeline.network.config.image_size
    table = feather.read_table(data / "held_out.feather", columns=["image", "style"]).to_pylist()
    pictures = defaultdict(list)
    for row in table:
        pictures[row["style"]].append(square(Image.open(io.BytesIO(row["image"]["bytes"])), side, None))
    found = {}
    for style, pixels in {**pictures, "all": [one for each in pictures.values() for one in each]}.items():
        given = torch.stack(pixels)
        with torch.inference_mode():
            parts = [part.to(pipeline.network.device) for part in given.split(BATCH)]
            made = torch.cat([pipeline.codec.decode(pipeline.codec.encode(part)).cpu() for part in parts]).clamp(-1, 1)
        away = (made - given).flatten(1) * 127.5
        decibels = 10 * (255**2 / away.square().mean(dim=1).clamp(min=1e-4)).log10()
        found[style] = {
            "pictures": len(pixels),
            "absolute": round(away.abs().mean().item(), 3),
            "psnr": round(decibels.mean().item(), 2),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
