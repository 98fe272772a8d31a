"""Replay against forgetting: before a run the model draws from known noise, and goes on learning these pairs.

Pictures of others, even good ones, bend the paths of a model that has learned from its own (docs/training.md, Reflow).
So what a fine-tuned model shall keep drawing is what it draws now, with the states of its paths (`data/reflow.py`).
With `refresh` they are drawn again on the way: the states of the model as it has become, towards what it drew before.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from janusflow.data.reflow import STATE, Correct, ReflowConfig, read_prompts, reflow
from janusflow.data.rows import SourceConfig
from janusflow.device import cast
from janusflow.pipeline import JanusFlow
from janusflow.tinyworld.captions import KINDS, Task, sample_pair
from janusflow.tinyworld.checker import check
from janusflow.training.config import TINYWORLD, TrainConfig
from janusflow.training.distributed import World
from janusflow.training.start import check_sizes

STEPS, STATES = 12, 9  # states of up to about t = 2/3
SEED, SEEDS, TURN = 60_000_000, 1_000_000, 100_000  # of the noise: the first, and between runs and between drawings
PIXELS = 64  # a side of the tiny world's pictures

Sources = dict[str, list[SourceConfig]]
Averaged = Callable[[], "JanusFlow | None"]


def old_tasks(seed: int, count: int) -> list[Task]:
    """Prompts of the tiny world, each kind as often."""
    return [sample_pair(Random(f"old/{seed}/{n}"), KINDS[n % len(KINDS)])[0] for n in range(count)]


def replays(config: TrainConfig) -> list[SourceConfig]:
    """Those that a run draws."""
    drawing = any(ratio.generation for ratio in config.data.ratios)
    return [source for source in config.data.sources()["generation"] if drawing and source.kind == "replay"]


def ends(config: TrainConfig, step: int) -> list[int]:
    """The steps after `step` where replays are drawn again, and the last step of the run."""
    every = [source.refresh for source in replays(config) if source.refresh]
    return sorted({*(end for n in every for end in range(n, config.steps, n) if end > step), config.steps})


def drawn_sources(config: TrainConfig, world: World, step: int = 0, averaged: Averaged | None = None) -> Sources:
    """The sources of a run after a step, its replays drawn into the run's folder, where a run that goes on finds them.

    One process draws while the others wait.

    Args:
        config: of the run.
        world: this process.
        step: how many are done.
        averaged: gives the first process the model as it is by then; all processes ask.

    Raises:
        ValueError: if the prompts cannot be read, or are the tiny world's for a model of other pictures, or none of
            the pictures is right; or if pictures that were drawn on the way are gone.
    """
    sources = config.data.sources()
    if not replays(config):
        return sources
    size = check_sizes(config).image_size
    for number, source in enumerate(sources["generation"]):
        if source.kind != "replay":
            continue
        if source.path == TINYWORLD and size != PIXELS:
            raise ValueError(
                f"{config.model.checkpoint} draws {size} pixels a side and the tiny world has {PIXELS}; for a "
                "replay give data.generation.0.path=FILE, a prompt in each line, or do without it: data.own_share=1"
            )
        turn = min(step, config.steps - 1) // source.refresh if source.refresh else 0
        folder = Path(config.out) / (f"replay{number}-{turn}" if turn else f"replay{number}")
        model = averaged() if averaged and turn and step == turn * source.refresh else None
        failed: Exception | None = None
        if world.first:
            try:
                _draw(config, source, folder, turn, model, world)
            except Exception as error:
                failed = error
        if world.largest({"failed": float(failed is not None)})["failed"]:  # all end together, or some would wait
            raise failed or ValueError("the first process could not draw the replay; see what that one says")
        sources["generation"][number] = replace(source, kind="parquet", path=str(folder), streaming=False)
    return sources


def _draw(
    config: TrainConfig, source: SourceConfig, folder: Path, turn: int, model: JanusFlow | None, world: World
) -> None:
    def opened(name: str) -> JanusFlow:
        return JanusFlow.from_pretrained(name, vae=config.model.vae, dtype=config.precision, device=world.device)

    start, teacher = str(config.model.checkpoint), None
    if turn and model is None:
        if not (folder / STATE).is_file():
            raise ValueError(
                f"{folder} is gone, and only the model of step {turn * source.refresh} could draw it again; "
                "put it back, go on with refresh=0, or begin anew in another out=FOLDER"
            )
        return
    if not turn:
        for later in folder.parent.glob(f"{folder.name}-*"):  # of a run that was here before
            shutil.rmtree(later)
    if source.teacher or turn:
        try:
            teacher = opened(source.teacher or start)
        except ValueError as error:
            raise ValueError(f"the replay's teacher cannot be opened: {error}") from error
    if model is None:
        model = opened(start)
    else:
        cast(model.network, getattr(torch, config.precision))
        print(f"replay: {source.images} pictures are drawn again", file=sys.stderr)
    seed = SEED + SEEDS * config.seed + TURN * turn
    correct: Correct | None = None
    if source.path == TINYWORLD:
        tasks = old_tasks(seed, source.images)
        prompts, correct = [task.prompt for task in tasks], right_ones(tasks)
    else:
        given, first = read_prompts(Path(source.path)), turn * source.images
        prompts = [given[number % len(given)] for number in range(first, first + source.images)]
    settings = ReflowConfig(
        steps=STEPS, guidance=source.guidance, seed=seed, batch_size=48, shard_size=240, states=STATES
    )
    names = {"model": start, "teacher": source.teacher, "pictures of the replay": source.images}
    counts = reflow(model, prompts, folder, settings, teacher=teacher, correct=correct, names=names, shown=not turn)
    if not counts["kept"]:
        shutil.rmtree(folder)
        raise ValueError(
            f"{start} drew none of {counts['drawn']} pictures as asked, so there is nothing to be kept; "
            "give rendered ones with data.generation.0.kind=tinyworld, or data.own_share=1"
        )
    print(f"replay: {counts['kept']} of {counts['drawn']} pictures that were drawn are learned too", file=sys.stderr)


def right_ones(tasks: list[Task]) -> Correct:
    """Leaves out what the checker finds wrong."""

    def correct(numbers: list[int], pictures: list[Image.Image]) -> list[Image.Image | None]:
        return [p if check(tasks[n], np.asarray(p)).passed else None for n, p in zip(numbers, pictures, strict=True)]

    return correct
