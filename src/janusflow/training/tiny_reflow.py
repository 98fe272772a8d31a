"""Reflow in the tiny world: what the model draws wrong becomes the nearest scene that shows what was asked for."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from janusflow.data.reflow import ReflowConfig, reflow
from janusflow.pipeline import JanusFlow
from janusflow.tinyworld.captions import Clause, Task, describe, sample_pair
from janusflow.tinyworld.nearest import nearest_scene
from janusflow.tinyworld.scenes import Scene, render

SHARES = {
    "single_object": 0.15,
    "two_object": 0.18,
    "counting": 0.17,
    "colors": 0.14,
    "position": 0.18,
    "color_attr": 0.16,
    "dense": 0.05,
}
DESCRIBED = 0.08  # of the prompts are full descriptions
# The first round takes guidance into the velocity, so the second draws without it. Eight steps show where what will be.
ROUNDS = (
    ReflowConfig(steps=8, guidance=3.0, seed=10_000_000, batch_size=96, shard_size=960),
    ReflowConfig(steps=8, guidance=1.0, seed=20_000_000, batch_size=96, shard_size=960),
)
PAIRS = 4800  # drawn in a round


def sample_tasks(seed: int, count: int) -> list[Task]:
    """What a round asks for: tasks as in training, some of them full descriptions."""
    tasks = []
    for number in range(count):
        rng = Random(f"reflow/{seed}/{number}")
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        task, scene = sample_pair(rng, kind)
        tasks.append(described(scene) if rng.random() < DESCRIBED else task)
    return tasks


def described(scene: Scene) -> Task:
    """The full description of a scene as a task."""
    clauses = tuple(Clause(s.kind, 1, s.color, s.size, s.region) for s in scene.shapes)
    return Task("dense", describe(scene), clauses, background=scene.background)


def draw_pairs(model: str | Path, folder: Path, number: int, *, count: int = PAIRS, device: str = "auto") -> None:
    """Draws the pairs of a round, counted from 0, into `folder`; one that was stopped goes on.

    Args:
        model: that draws.
        folder: of the files.
        number: of the round.
        count: pictures drawn.
        device: where.
    """
    config = ROUNDS[number]
    tasks = sample_tasks(config.seed, count)
    pipeline = JanusFlow.from_pretrained(model, device=device, dtype="bfloat16")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        correct = partial(_corrected, pool, tasks)
        prompts = [task.prompt for task in tasks]
        reflow(pipeline, prompts, folder, config, correct=correct, names={"model": str(model)})


def _corrected(
    pool: ProcessPoolExecutor, tasks: list[Task], numbers: list[int], pictures: list[Image.Image]
) -> list[Image.Image | None]:
    asked = [tasks[number] for number in numbers]
    return list(pool.map(_nearest, asked, [np.asarray(picture) for picture in pictures], numbers, chunksize=8))


def _nearest(task: Task, pixels: np.ndarray, number: int) -> Image.Image | None:
    scene = nearest_scene(task, pixels, Random(number))
    return None if scene is None else Image.fromarray(render(scene))
