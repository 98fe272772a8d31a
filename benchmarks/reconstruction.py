"""What a model's VAE loses: an upper bound on the quality that the model can generate.

python benchmarks/reconstruction.py --model runs/pictograms/parts/export --data data/pictograms

It reconstructs pictograms that training never sees, and scenes of the tiny world, which the checker then judges.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from pyarrow import feather
from torch import Tensor

from janusflow.data.samples import square
from janusflow.engine.generation import as_pictures
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.tinyworld.captions import GENEVAL_KINDS, scene_for
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.items import tasks
from janusflow.tinyworld.scenes import render

BATCH = 64
SCENES = 40  # of each kind


def reconstructed(pipeline: JanusFlow, given: Tensor) -> Tensor:
    """Encode and decode pictures, (N, 3, H, W)."""
    with torch.inference_mode():
        parts = [part.to(pipeline.network.device) for part in given.split(BATCH)]
        return torch.cat([pipeline.codec.decode(pipeline.codec.encode(part)).cpu() for part in parts]).clamp(-1, 1)


def loss_of(given: Tensor, made: Tensor) -> dict[str, float]:
    """Return the number of pictures, the mean absolute difference in levels of 255, and the mean PSNR in dB."""
    away = (made - given).flatten(1) * 127.5
    decibels = 10 * (255**2 / away.square().mean(dim=1).clamp(min=1e-4)).log10()
    absolute, psnr = away.abs().mean().item(), decibels.mean().item()
    return {"pictures": len(given), "absolute": round(absolute, 3), "psnr": round(psnr, 2)}


def coarse(pipeline: JanusFlow, given: Tensor) -> dict[str, float]:
    """Return the share of the latents' variance that averaging 2 x 2 or 4 x 4 cells leaves, as the mean of channels."""
    with torch.inference_mode():
        latents = torch.cat(
            [pipeline.codec.encode(part.to(pipeline.network.device)).cpu() for part in given.split(BATCH)]
        )
    whole = latents.var((0, 2, 3))
    shares = {side: (F.avg_pool2d(latents, side).var((0, 2, 3)) / whole).mean().item() for side in (2, 4)}
    return {f"{side} x {side}": round(share, 3) for side, share in shares.items()}


def scenes(pipeline: JanusFlow, side: int) -> dict[str, float]:
    """Reconstruct scenes of the six kinds of prompts, and return their loss and the share that passes the checker."""
    asked = [task for kind in GENEVAL_KINDS for task in tasks(kind, SCENES, held_out=False)]
    drawn = []
    for number, task in enumerate(asked):
        rng, scene = Random(f"reconstruction-{number}"), None
        while scene is None:
            scene = scene_for(rng, task, training=False)
        drawn.append(square(Image.fromarray(render(scene)), side, None))
    given = torch.stack(drawn)
    made = reconstructed(pipeline, given)
    pictures = [np.asarray(picture) for picture in as_pictures(made, "pil")]
    right = [check(task, picture).passed for task, picture in zip(asked, pictures, strict=True)]
    return {**loss_of(given, made), "pass": round(sum(right) / len(right), 3)}


def main(
    model: Annotated[str, typer.Option(help="'tiny', a folder or a hub id.")],
    data: Annotated[Path, typer.Option(help="Data set of pictograms, with held_out.feather.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print `loss_of` for each style and for the tiny world, there with the share that passes, and `coarse`."""
    pipeline = JanusFlow.from_pretrained(model, device=device)
    side = pipeline.network.config.image_size
    table = feather.read_table(data / "held_out.feather", columns=["image", "style"]).to_pylist()
    pictures = defaultdict(list)
    for row in table:
        pictures[row["style"]].append(square(Image.open(io.BytesIO(row["image"]["bytes"])), side, None))
    found = {}
    for style, pixels in {**pictures, "all": [one for each in pictures.values() for one in each]}.items():
        given = torch.stack(pixels)
        found[style] = loss_of(given, reconstructed(pipeline, given))
    found["tiny world"] = scenes(pipeline, side)
    found["variance of latents"] = coarse(pipeline, given)  # of all pictograms, the last in the loop
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
