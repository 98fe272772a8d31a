"""Stage 2 of the pictograms recipe in a few minutes on one GPU: samples per second against batch size, then a run with
the best batch size that ends in time, with its checkpoint and export in `--out`.

    python benchmarks/gpu_pictures.py --start runs/pictograms/stage1/export --data data/pictograms --out $OUT

To check on a CPU that it runs: `--minutes 0.2 --batch 8 --batch 16 --probe 2 --workers 0`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import torch
import typer

from janusflow.data.loader import steps as samples_of
from janusflow.device import resolve_device
from janusflow.training.config import TrainConfig, load_config
from janusflow.training.config.sources import sources_of
from janusflow.training.distributed import World
from janusflow.training.export_only import export_only
from janusflow.training.start import open_model
from janusflow.training.step import take_step
from janusflow.training.trainer import open_data, prepare, train, with_precision

RECIPE = Path("recipes/pictograms/stage2.yaml")
WARM = 2  # steps before the clock starts
USED = 0.92  # share of the minutes for steps; the rest is for starting and saving
SLACK = 1.05  # share of the minutes after which the run is stopped
LARGEST_RATE = 3.0e-3
BATCHES = (64, 256, 512, 1024, 2048)
LAST = 100_000  # more steps than are ever timed


def configured(recipe: Path, start: str, data: Path, out: Path, batch: int, changes: list[str]) -> TrainConfig:
    """Return the recipe for a batch size: the learning rate grows with its root, because gradient noise falls."""
    given = load_config(recipe, [f"model={start}"])
    rate = min(LARGEST_RATE, given.optimizer.learning_rate * (batch / given.batch_size) ** 0.5)
    places = [f"data.{task}.0.path={data}" for task in ("understanding", "generation")]
    fixed = [f"model={start}", f"out={out}", f"batch_size={batch}", f"optimizer.learning_rate={rate:.3g}"]
    return load_config(recipe, [*fixed, *places, "watch.every=0", *changes])


def samples_per_second(config: TrainConfig, device: torch.device, seconds: float) -> float:
    """Return training samples per second, including data loading, over about `seconds` seconds after a warm-up."""
    world = World(0, 1, device, None)
    config = with_precision(config, world)
    model = open_model(config, device)
    run, count, begun = prepare(config, world, model), 0, 0.0
    data = open_data(config, world, model, sources_of(config.data))
    with closing(samples_of(data, 0, LAST, workers=config.data.workers)) as feed:
        for number, samples in enumerate(feed):
            take_step(run, samples)  # reads the losses, so it waits for the device
            if number + 1 == WARM:
                begun = time.perf_counter()
            elif number + 1 > WARM:
                count += len(samples.samples)
                if time.perf_counter() - begun >= seconds:
                    break
    return count / (time.perf_counter() - begun)


def main(
    start: Annotated[str, typer.Option(help="Export of stage 1 that stage 2 starts from.")],
    data: Annotated[Path, typer.Option(help="Data set of pictograms.")],
    out: Annotated[Path, typer.Option(help="Folder for rates, checkpoint and export.")],
    recipe: Annotated[Path, typer.Option(help="Recipe of the stage.")] = RECIPE,
    batch: Annotated[list[int], typer.Option(help="Batch size to time; repeatable.")] = list(BATCHES),  # noqa: B006
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 8.0,
    probe: Annotated[float, typer.Option(help="Seconds per batch size.")] = 6.0,
    pack_length: Annotated[int, typer.Option(help="Tokens per row.")] = 32768,
    workers: Annotated[int, typer.Option(help="Number of processes that make samples.")] = 14,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks; takes a minute at first.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Time batch sizes, then train with the best one."""
    place = resolve_device(device)
    changes = [f"pack_length={pack_length}", f"data.workers={workers}", f"compile={str(compiled).lower()}"]
    changes += ["ema=0.99", "ema_warmup=true", "optimizer.warmup=20", "save.every=1000000", "save.keep=1"]
    rates: dict[int, float] = {}
    for size in batch:
        config = configured(recipe, start, data, out / "stage2", size, changes)
        try:
            rates[size] = samples_per_second(config, place, probe)
        except torch.OutOfMemoryError:
            print(f"batch {size}: out of memory", flush=True)
            break
        print(f"batch {size}: {rates[size]:,.0f} samples/s", flush=True)
    best = max(rates, key=lambda size: rates[size])
    seconds = minutes * 60
    count = max(1, int(rates[best] * seconds * USED / best))
    out.mkdir(parents=True, exist_ok=True)
    found = {"samples per second": rates, "batch": best, "steps": count, "minutes": minutes, "device": str(place)}
    (out / "rates.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"training {count} steps of {best}", flush=True)
    stop = threading.Timer(seconds * SLACK, os.kill, (os.getpid(), signal.SIGTERM))
    stop.daemon = True
    stop.start()
    config = configured(recipe, start, data, out / "stage2", best, [*changes, f"steps={count}"])
    made = train(config, device=device, progress_bar=False)
    stop.cancel()
    if not (made / "config.json").is_file():  # stopped before the last step: use what is saved
        made = export_only(out / "stage2", device=device)
    print(f"trained: {made}", flush=True)


if __name__ == "__main__":
    typer.run(main)
