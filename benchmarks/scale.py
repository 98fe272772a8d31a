"""Rates of a GPU at JanusFlow-1.3B's size, with random weights: training, generating and answering.

python benchmarks/scale.py            # for a GPU with 80 GB or more
python benchmarks/scale.py --small    # the tiny network, to check that it runs
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL
from PIL import Image

from janusflow import JanusFlow
from janusflow.data.loader import Data, StepSamples
from janusflow.data.mixture import Mixture
from janusflow.data.samples import SampleMaker
from janusflow.device import resolve_device
from janusflow.training.config import TrainConfig, load_config
from janusflow.training.config.sources import sources_of, weights_of
from janusflow.training.distributed import join
from janusflow.training.dryrun import estimate
from janusflow.training.start import open_model
from janusflow.training.step import take_step
from janusflow.training.trainer import prepare, with_precision
from janusflow.vae import LatentCodec
from training import gemm_rate

RECIPE = Path(__file__).parents[1] / "recipes" / "paper" / "stage2.yaml"
TINYWORLD = "[{kind: tinyworld}]"
SDXL = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.13025,
}
SMALL = {**SDXL, "block_out_channels": (32, 32, 32), "down_block_types": ("DownEncoderBlock2D",) * 3}
SMALL["up_block_types"] = ("UpDecoderBlock2D",) * 3


def synchronized(device: torch.device) -> float:
    """Return the time once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def new(small: bool) -> list[str]:
    """Return overrides for a model from scratch; all of its parts have to learn."""
    preset = ["model.preset=tiny", "loss.repa_block=3"] if small else ["model.preset=janusflow_1b"]
    return [
        "model.checkpoint=null",
        "model.processor=tiny",
        "model.vae=null",
        "parts=[aligner, generation, llm, tower]",
        *preset,
    ]


def random_model(config: TrainConfig, device: torch.device, *, small: bool) -> JanusFlow:
    """Return a model with random weights made on the device, and a random VAE of the SDXL-VAE's architecture."""
    with device:
        model = open_model(config, device)
        latent = model.network.config.latent_channels
        model.vae = LatentCodec(AutoencoderKL(latent_channels=latent, **(SMALL if small else SDXL)))  # type: ignore[arg-type]
    return model


def training(batch: int, steps: int, device: torch.device, *, small: bool, changes: list[str]) -> None:
    """Print a row of the table: steps of stage 2 on `batch` samples of the tiny world, enlarged to the model's size."""
    given = [*new(small), f"batch_size={batch}", "data.workers=0"]
    given += [f"data.{task}={TINYWORLD}" for task in ("understanding", "generation", "text")]
    model = random_model(load_config(RECIPE, given), device, small=small)
    config = load_config(RECIPE, [*given, *changes, "parts=[aligner, generation, llm]"])
    mixture = Mixture(config.data.ratios, weights_of(config.data), batch_size=batch, seed=0)
    data = Data(
        sources_of(config.data), mixture, SampleMaker(model.processor, model.network.config, config.samples), seed=0
    )
    found = data[20_000]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    world = join(str(device))
    config = with_precision(config, world)
    run = prepare(config, world, model)
    times, losses = [], {}
    for number in range(steps + 2):
        started = synchronized(device)
        losses = take_step(run, StepSamples(number, found.samples))
        times.append(synchronized(device) - started)
    step, sizes = median(times[2:]), estimate(config)
    flops = sizes.flops * losses["tokens"] / sum(sizes.tokens.values())
    rate = flops / step
    peak = gemm_rate(device, config.precision)
    used = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    kept = "checkpointing" if config.activation_checkpointing else "all activations"
    how = f"{kept}{', compiled' if config.compile else ''}, {config.precision}"
    print(
        f"| {how} | {batch} | {losses['tokens']:,.0f} | "
        f"{losses['fill']:.0%} | {step:.3f} | {losses['tokens'] / step:,.0f} | {rate / 1e12:,.1f} | "
        f"{rate / peak:.0%} of {peak / 1e12:,.0f} | {used:.1f} | {sizes.memory(1) / 1e9:.1f} | {losses['loss']:.2f} |",
        flush=True,
    )


def typical(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return seconds, the median of several after one warm-up run."""
    times = []
    for _ in range(repeats + 1):
        started = synchronized(device)
        work()
        times.append(synchronized(device) - started)
    return median(times[1:])


def inference(model: JanusFlow, device: torch.device, batches: list[int], steps: int, tokens: int) -> None:
    """Print a table: pictures and answer tokens per second, by batch."""
    print(
        f"\n| at once | pictures/s ({steps} Euler steps, guidance 2, with the VAE) | answer tokens/s | peak GB |\n"
        "| ---: | ---: | ---: | ---: |"
    )
    side = model.network.config.image_size
    picture = Image.effect_noise((side, side), 80).convert("RGB")
    prompt = "a red circle above a blue square, on a white background, both of them large"
    for count in batches:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

        def draw(count: int = count) -> object:
            return model.generate([prompt] * count, seed=0, num_inference_steps=steps, batch_size=count, progress=False)

        def answer(count: int = count) -> object:
            return model.ask_batch(["What is shown?"] * count, [picture] * count, max_new_tokens=tokens)

        drawing, answering = typical(draw, device, 2), typical(answer, device, 2)
        used = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
        print(f"| {count} | {count / drawing:.2f} | {count * tokens / answering:,.0f} | {used:.1f} |", flush=True)


def main(
    batch: Annotated[int, typer.Option(help="Samples per training step.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps to time, after two warm-up steps.")] = 5,
    small: Annotated[bool, typer.Option("--small", help="The tiny network.")] = False,
    compiled: Annotated[bool, typer.Option(help="Also time compiled training.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print two tables in Markdown."""
    place = resolve_device(device)
    name = torch.cuda.get_device_name() if place.type == "cuda" else place.type
    print(f"{name}, PyTorch {torch.__version__}\n")
    print(
        "| | samples | tokens | full | s a step | tokens/s | TFLOP/s | of a matrix product's | peak GB | estimated | "
        "loss |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    runs: list[list[str]] = [[], ["activation_checkpointing=false"]]
    runs += [["activation_checkpointing=false", "compile=true"]] if compiled else []
    for changes in runs:
        try:
            training(batch, steps, place, small=small, changes=changes)
        except torch.OutOfMemoryError as error:
            print(f"| {' '.join(changes)} | out of memory: {str(error)[:60]} |")
        if place.type == "cuda":
            torch.cuda.empty_cache()
    model = random_model(load_config(RECIPE, new(small)), place, small=small)
    model.network.to(torch.bfloat16).eval()
    model.codec.vae.to(torch.bfloat16)
    inference(model, place, [1, 8, 32] if place.type == "cuda" else [1], 30 if place.type == "cuda" else 2, 64)


if __name__ == "__main__":
    typer.run(main)
