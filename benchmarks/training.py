"""Training throughput of the tiny recipe: samples per second, and the share of this machine's own GEMM rate.

python benchmarks/training.py
python benchmarks/training.py data.workers=8 --steps 40    # on a GPU, which waits for one worker
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer

from janusflow.device import DTYPES, resolve_device, resolve_precision
from janusflow.training.config import load_config
from janusflow.training.dryrun import estimate
from janusflow.training.trainer import train

SKIPPED = 3  # warm-up steps
SIDE = 2048  # of the matrices on a CPU


def gemm_rate(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of a large matrix product of random numbers, the best of several."""
    side = SIDE if device.type == "cpu" else 4 * SIDE
    left, right = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        float((left @ right)[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings of the recipe, as key=value.")] = None,
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    steps: Annotated[int, typer.Option(help="Steps to time, after the warm-up.")] = 12,
    recipe: Annotated[Path, typer.Option(help="Recipe to train.")] = Path("recipes/tiny/stage2.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print the median step."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"model={model}", f"out={folder}/run", f"steps={steps + SKIPPED}", "watch.every=0"]
        changes += ["watch.tensorboard=false", "data.ratios=[{understanding: 23, generation: 70, text: 7}]"]
        changes += settings or []
        config = load_config(recipe, changes)
        train(config, device=device, progress_bar=False)
        rows = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()][SKIPPED:]
    step = median(row["seconds"] for row in rows)
    tokens = median(row["tokens"] for row in rows)
    place = resolve_device(device)
    precision = resolve_precision(config.precision, place)
    found, peak = estimate(config), gemm_rate(place, precision)
    flops = found.flops * tokens / sum(found.tokens.values())
    print(
        f"{step:.2f} s a step of {config.batch_size} samples: {config.batch_size / step:.0f} samples/s, "
        f"{tokens / step:,.0f} tokens/s; {flops / step / 1e9:,.0f} GFLOP/s, "
        f"{flops / step / peak:.0%} of the {peak / 1e9:,.0f} GFLOP/s of a {precision} matrix product; "
        f"{median(row['waited'] for row in rows) / step:.1%} waiting for data"
    )


if __name__ == "__main__":
    typer.run(main)
