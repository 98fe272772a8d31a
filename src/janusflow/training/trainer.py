"""The training loop: data, step, report, save. The same code runs in one process or under torchrun.

janusflow train recipes/tiny/stage2.yaml
torchrun --nproc-per-node 8 -m janusflow.cli train recipes/paper/stage2.yaml model=... data.generation.0.path=...
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from janusflow.data.loader import Data, StepSamples, steps, worker_killed
from janusflow.data.mixture import Mixture
from janusflow.data.samples import SampleMaker
from janusflow.data.sources import SourceConfig
from janusflow.device import resolve_precision
from janusflow.families import family_of
from janusflow.model.attention import PACKED
from janusflow.model.convnext import ConvNextBlock
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.training.anchor import Anchor
from janusflow.training.broken import too_many_broken
from janusflow.training.cache import PictureCache
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import anchored, sources_of, weights_of
from janusflow.training.data_contents import check_contents, write_contents
from janusflow.training.distributed import World, join, leave, shard
from janusflow.training.ema import Ema
from janusflow.training.export import export
from janusflow.training.lock import alone_in
from janusflow.training.loop import loop
from janusflow.training.lora import add_adapters
from janusflow.training.losses import active, described, watched_losses
from janusflow.training.objective import Objective
from janusflow.training.optimizers import make_optimizers
from janusflow.training.replay import drawn_sources
from janusflow.training.report import Report
from janusflow.training.resume import Checkpoints, Progress
from janusflow.training.start import check_sizes, open_model, take_heads
from janusflow.training.step import Encoder, TrainState, autocast, take_step
from janusflow.training.stop import caught_signals, leave_at_once, on_stop
from janusflow.training.stored_settings import changed_settings, write_settings
from janusflow.training.trainable import choose_trainable

MEMORY = 0.98  # decay of the running mean of the loss
CALM_STEPS = 20  # the first losses say nothing about a spike


class RunError(ValueError):
    """Raised in all processes if the run cannot continue. The message says why; the last checkpoint is intact."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    device: str = "auto",
    official: bool = False,
    progress_bar: bool = True,
) -> Path:
    """Train, and export the EMA weights as a folder that `JanusFlow.from_pretrained` opens.

    Args:
        config: settings from `load_config`.
        resume: continue the run in `config.out`; without it, a folder with checkpoints is refused.
        device: device of a single process.
        official: also export in the official layout, into the folder `export-official`.
        progress_bar: whether to show a progress bar.

    Returns:
        The exported folder; or, when SIGTERM ended the run early, the folder of the run.

    Raises:
        ValueError: before anything is trained, if data or a model cannot be opened, the official layout cannot store
            the network, or another process trains in the same folder; as `RunError`, if a loss is not finite or jumps,
            or too many records are broken. The last checkpoint is then intact.
        OSError: if a checkpoint or the export cannot be written.
        SystemExit: with status 0, if SIGTERM comes before the first step or after the last one: nothing is lost.
        KeyboardInterrupt: at SIGINT (Ctrl-C), after saving as at SIGTERM; a second one interrupts at once.
    """
    config = replace(config, out=os.path.expanduser(config.out))
    world = join(device)
    try:
        with on_stop(leave_at_once), alone_in(Path(config.out), world):
            return _train(config, world, resume=resume, official=official, shown=progress_bar)
    finally:
        leave(world)


def _train(config: TrainConfig, world: World, *, resume: bool, official: bool, shown: bool) -> Path:
    config = with_precision(config, world)
    out = Path(config.out)
    checkpoints = Checkpoints(out / "checkpoints", world, keep=config.save.keep, background=config.save.background)
    if checkpoints.all() and not resume:
        raise ValueError(f"{out} contains a run already; continue it with --resume, or give another out=FOLDER")
    sizes = check_sizes(config)
    if official:
        family_of(sizes).layout("official").check(sizes)
    for source in (one for given in sources_of(config.data).values() for one in given):
        source.check_place()
        source.check_out(out)
    if checkpoints.all():
        check_contents(out, config, world)
    sources = drawn_sources(config, world)
    model = open_model(config, world.device)
    state = prepare(config, world, model)
    state.progress = checkpoints.restore(state.objective, state.ema, state.optimizers)
    data = open_data(config, world, model, sources)
    report = Report(out, config, world, first=state.progress.step, shown=shown)
    report.say(f"data: {data.described()}")
    report.say(f"model: {described(sizes, config.loss)}")
    if state.progress.step and (changed := changed_settings(out, config)):
        report.say(
            f"settings have changed since the run was last started, so it may train differently: {', '.join(changed)}"
        )
        if any(change.startswith("loss.") for change in changed):
            state.progress.means.clear()  # of weighted losses
    if world.first:
        write_settings(out, config)
        write_contents(out, config)
    if resume and not state.progress.step:
        report.say(f"{out} contains no checkpoint yet: the run starts from the beginning")
    if state.progress.ranks == world.ranks:
        data.restore(state.progress.streams.get(str(world.rank), {}))
    elif state.progress.step and data.streams():
        before, now = state.progress.ranks, world.ranks
        what = "1 process" if now == 1 else f"{now} processes"
        report.say(f"{what} instead of {before}: streams start again, so rows that were seen are repeated")
    feed = steps(data, state.progress.step, config.steps, workers=config.data.workers)
    with report, caught_signals() as caught, closing(feed):
        try:
            finished = _loop(state, feed, checkpoints, report, model, lambda: world.any(bool(caught)))
        except RunError as error:
            checkpoints.finish()
            raise RunError(f"{error}; {checkpoints.left()}") from error
        except Exception as error:
            if world.mesh is None:  # with several, the others may not get here; resuming completes what is written
                checkpoints.finish()
            if killed := worker_killed(error, config.data.workers):
                raise RunError(f"{killed}; {checkpoints.left()}") from error
            raise
        checkpoints.finish()
    if not finished or world.any(bool(caught)):
        if finished:
            report.say("stopped after the last step; --resume writes the export")
        if signal.SIGINT in caught:
            raise KeyboardInterrupt
        return out
    return finish(state, model, report, official=official)


def finish(state: TrainState, model: JanusFlow, report: Report, *, official: bool) -> Path:
    """Export the averages, and report the share of the starting weights in them.

    Raises:
        OSError: if the export cannot be written.
    """
    if state.progress.start_share is None:  # no step was taken after a checkpoint without it
        state.progress.start_share = state.config.start_share(state.progress.step)
    try:
        folder = export(state, model, Path(state.config.out) / "export", official=official)
    except (OSError, SafetensorError) as error:  # SafetensorError (a full disk) is not an OSError
        raise OSError(f"the export could not be written ({error}); --resume writes it again") from error
    report.exported(state.progress)
    return folder


def prepare(config: TrainConfig, world: World, model: JanusFlow) -> TrainState:
    """Prepare the objective, optimizers and EMA at step 0, on the device and sharded.

    The config must come from `with_precision`.
    """
    latents, features = _frozen_parts(config, world, model)
    model.network.set_attn_implementation({"text_config": PACKED})
    anchor = Anchor(model.network) if anchored(config.data) else None
    objective, ema = learner(config, world, model.network)
    optimizers = make_optimizers(objective, config.optimizer, precision=config.precision)
    return TrainState(config, world, objective, latents, features, optimizers, ema, Progress(), anchor)


def learner(config: TrainConfig, world: World, network: Any) -> tuple[Objective, Ema]:
    """Return an objective around a network, changed in place to train what the recipe says, and its averages."""
    torch.manual_seed(config.seed)
    if config.lora.rank:
        add_adapters(network, config.lora, config.parts)
    else:
        choose_trainable(network, config.parts, config.freeze)
    if config.activation_checkpointing:
        new = hasattr(network, "activation_checkpointing_enable")  # the name of transformers 5.23
        enable = network.activation_checkpointing_enable if new else network.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    objective = Objective(network, config.loss)
    take_heads(objective, config.model.checkpoint)
    objective.to(world.device)
    if config.compile:
        _compile(network, world)
    shard(objective, world, precision=config.precision)
    return objective, Ema(objective)


def _compile(network: Any, world: World) -> None:
    """Compile the blocks of LLM, f_enc, g_enc and g_dec; on a CPU without a C++ compiler, nothing is compiled."""
    if world.device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        warnings.warn("no C++ compiler was found, so nothing is compiled; steps take longer", stacklevel=2)
        return
    for module in network.modules():
        if isinstance(module, GradientCheckpointingLayer | ConvNextBlock):  # the former are transformers' blocks
            module.compile(dynamic=True)


def _frozen_parts(config: TrainConfig, world: World, model: Any) -> tuple[Encoder | None, Encoder | None]:
    """Return the encoders for latents (or codes) and, with a cache, for features.

    The cached tower is a copy, because the network's is sharded.
    """
    if not any(ratio.generation for ratio in config.data.ratios):
        return None, None
    codec = model.codec
    if config.data.cache is None:
        return codec.encode, None
    folder = Path(config.data.cache).expanduser()
    made = folder / codec.makes  # in the codec's own dtype, whatever the precision
    latents = PictureCache(made, codec.weights, codec.encode, settings=codec.settings)
    repa = "repa" in active(config.loss, model.family)
    if not repa or "tower" in config.parts or config.lora.tower:
        return latents, None
    encoder = copy.deepcopy(model.network.understanding_encoder).eval().requires_grad_(False)

    @torch.no_grad()
    def features(pixels: Tensor) -> Tensor:
        with autocast(config, world):
            return encoder.features(pixels)

    return latents, PictureCache(folder / "features" / config.precision, encoder.tower, features)


def open_data(config: TrainConfig, world: World, model: JanusFlow, sources: dict[str, list[SourceConfig]]) -> Data:
    """Return the samples of all steps from these sources, as this process sees them."""
    mixture = Mixture(config.data.ratios, weights_of(config.data), batch_size=config.batch_size, seed=config.seed)
    maker = SampleMaker(model.processor, model.network.config, config.samples)
    return Data(sources, mixture, maker, seed=config.seed, rank=world.rank, ranks=world.ranks)


def _loop(
    state: TrainState,
    feed: Iterator[StepSamples],
    checkpoints: Checkpoints,
    report: Report,
    model: JanusFlow,
    stopping: Callable[[], bool],
) -> bool:
    """Run all remaining steps; return False if a signal stopped the run."""
    config, progress, world = state.config, state.progress, state.world

    def step(number: int) -> None:
        waiting = time.perf_counter()
        samples = next(feed)
        if world.any(bool(samples.failed)):  # all must end together, or some would wait
            report.skipped(samples.step + 1, samples.broken, samples.notes)
            raise RunError(samples.failed or "the data of another process cannot be read further; see its message")
        started = time.perf_counter()
        losses = take_step(state, samples)
        # Before the checkpoint: a killed run may log too many rows, which resuming drops, but never too few.
        took = time.perf_counter() - waiting
        report.step(losses, samples, waited=started - waiting, took=took)
        _check_losses(state, samples.step + 1, losses)
        _count_records(state, samples)
        progress.step += 1
        progress.streams[str(world.rank)] = samples.streams
        checkpoints.settle()

    def save(done: int) -> None:
        if progress.loss < progress.best[0]:
            progress.best = (progress.loss, done)
        checkpoints.save(state.objective, state.ema, state.optimizers, progress)

    def watch(done: int) -> None:
        if config.watch.every and done % config.watch.every == 0:
            report.watch(done, state.objective, state.ema, model)

    if loop(progress.step, config.steps, step=step, save=save, stopping=stopping, every=config.save.every, watch=watch):
        return True
    report.say(
        f"stopped: saved after step {progress.step}; continue with --resume, or export this checkpoint with "
        f"`janusflow train --export-only {config.out}`"
    )
    return False


def _check_losses(state: TrainState, number: int, losses: dict[str, float]) -> None:
    """Update the running means of the losses of a step, counted from 1.

    Raises:
        RunError: if a loss or the gradient is not finite, or the loss is far above its mean.
    """
    config, progress = state.config, state.progress
    if not (math.isfinite(losses["loss"]) and math.isfinite(losses["gradient"])):
        values = f"loss {losses['loss']}, gradient {losses['gradient']}"
        raise RunError(f"step {number}: {values}")
    watched, means = watched_losses(config.loss, losses), progress.means
    loss, mean = (sum(each[name] for name in watched if name in means) for each in (watched, means))
    if config.spike and number > CALM_STEPS and loss > config.spike * mean:
        raise RunError(f"step {number}: loss {loss:.4g} is more than {config.spike:g} times its mean {mean:.4g}")
    for name, value in watched.items():
        means[name] = MEMORY * means[name] + (1 - MEMORY) * value if name in means else value
    progress.loss = sum(means.values())


def _count_records(state: TrainState, found: StepSamples) -> None:
    """Add a step's records to the run's counts.

    Raises:
        RunError: if too many of the run's records are broken.
    """
    config, progress = state.config, state.progress
    lost = len(found.broken) + found.lost
    new = state.world.add_up({"seen": float(len(found.samples) + lost), "broken": float(lost)})
    seen, broken = progress.seen[0] + int(new["seen"]), progress.seen[1] + int(new["broken"])
    progress.seen = (seen, broken)
    if why := too_many_broken(seen, broken, config.data.max_broken, setting="data.max_broken", last=found.broken):
        raise RunError(why)


def with_precision(config: TrainConfig, world: World) -> TrainConfig:
    """Return the config with "auto" replaced by a precision of matrix products that is the same in all processes."""
    here = resolve_precision(config.precision, world.device)
    slow = world.any(here == "float32")
    return replace(config, precision="float32" if slow else "bfloat16")
