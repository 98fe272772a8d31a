"""Measure how long a run takes on this machine: run a few of its steps, time them, and discard the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from janusflow.data.loader import StepSamples
from janusflow.device import free_memory, resolve_device
from janusflow.families import family_of
from janusflow.folders import TINY, WEIGHT_FILES, find_folder
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import learned, sources_of
from janusflow.training.distributed import World
from janusflow.training.dryrun import estimate
from janusflow.training.replay import replays
from janusflow.training.start import open_model, sizes_of
from janusflow.training.step import TrainState, take_step
from janusflow.training.trainer import open_data, prepare, with_precision
from janusflow.vae import DEFAULT_VAE

BUDGET = 15.0  # seconds of timed steps
FEW = 4  # samples of the first step; the time of a whole step follows from this one and one of twice the size
WHOLE_STEPS = 2


def measured(config: TrainConfig, *, device: str = "auto") -> str:
    """Describe how long a run takes on this machine, or why that cannot be measured here.

    The steps take at most about half a minute. Nothing is written or downloaded, and no replay is generated: empty
    pictures take its place.

    Args:
        device: device of the run.

    Raises:
        ValueError: if the run itself would fail because its model or its data cannot be used.
    """
    place = resolve_device(device)
    world = World(0, 1, place, None)
    config = with_precision(config, world)
    if (reason := _obstacle(config, place)) is not None:
        return f"not measured on this machine: {reason}"
    left_out = ["checkpoints and the export"]
    left_out += ["sheets"] if config.watch.every else []
    left_out += ["generating the replay"] if replays(config) else []
    left_out += ["compiling"] if config.compile else []
    try:
        seconds, samples = _time_steps(config, world)
    except (OSError, RuntimeError) as error:  # RuntimeError: out of memory
        return f"not measured on this machine: {str(error).splitlines()[0]}"
    total = timedelta(seconds=round(seconds * config.steps))
    how = "measured" if samples >= config.batch_size else f"estimated from steps of up to {samples} samples"
    return (
        f"on this machine ({place.type}, {config.precision}): {seconds:.3g} s a step, {how}; "
        f"{total} for {config.steps:,} steps, without {', '.join(left_out)}"
    )


def _obstacle(config: TrainConfig, device: torch.device) -> str | None:
    """Return why nothing can be measured, or None."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "several processes share the work; give --dry-run to one"
    needed, free = estimate(config).memory(1), free_memory(device)
    if free is not None and needed > free:
        return f"one process needs about {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free"
    for name in _names(config):
        if not _is_here(name):
            return f"{name} is not on this machine; the run fetches it first"
    for *_, source in learned(config.data):
        if source.kind == "hub":
            return f"the data set {source.path} is read from the hub"
        try:
            source.check_place()
        except ValueError as error:
            return str(error)
    return None


def _names(config: TrainConfig) -> list[str]:
    """Return the checkpoints that the run opens."""
    start = config.model
    names = [name for name in (start.checkpoint, start.llm, start.tower, start.processor) if name is not None]
    if not any(ratio.generation for ratio in config.data.ratios) or not family_of(sizes_of(start)).separate_vae:
        return names + ([start.vae] if start.vae else [])
    own = (
        start.checkpoint is not None and _is_here(start.checkpoint) and (find_folder(start.checkpoint) / "vae").is_dir()
    )
    return [*names, start.vae or DEFAULT_VAE] if start.vae or not own else names


def _is_here(name: str) -> bool:
    """Return whether a checkpoint is in the package, is a folder, or is in the hub's cache with its weights."""
    if name == TINY or Path(name).expanduser().is_dir():
        return True
    cached = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return isinstance(cached, str) and any(any(Path(cached).parent.glob(pattern)) for pattern in WEIGHT_FILES)


def _time_steps(config: TrainConfig, world: World, clock: Callable[[], float] = time.perf_counter) -> tuple[float, int]:
    """Time a step of few samples and, if they fit into the budget, whole steps.

    Returns:
        Seconds of a whole step, including reading its data; and the number of samples of the timed steps.
    """
    config = replace(config, compile=False, data=replace(config.data, cache=None))
    model = open_model(config, world.device)
    state = prepare(config, world, model)
    data = open_data(config, world, model, sources_of(config.data))
    started = clock()
    found = data[0]
    if found.failed:
        raise ValueError(found.failed)
    workers = config.data.workers
    reading = (clock() - started) / max(workers, 1)

    def timed(samples: int) -> float:
        begun = clock()
        take_step(state, StepSamples(0, found.samples[:samples]))
        _wait(state)
        return clock() - begun

    timed(FEW)  # creates the optimizer's state
    step, samples = timed(FEW), min(2 * FEW, config.batch_size)
    if config.batch_size > FEW:  # the fixed time of a step, and the time of each sample
        more = timed(samples)
        step = more + max(more - step, 0.0) / (samples - FEW) * (config.batch_size - samples)
    if step <= BUDGET:
        count = WHOLE_STEPS if WHOLE_STEPS * step <= BUDGET else 1
        step, samples = sum(timed(config.batch_size) for _ in range(count)) / count, config.batch_size
    return max(step, reading) if workers else step + reading, samples


def _wait(state: TrainState) -> None:
    """Wait until the device has finished its work."""
    if state.world.device.type != "cpu":
        torch.get_device_module(state.world.device).synchronize()
