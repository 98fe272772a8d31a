"""Reflow in the tiny world: what the model draws wrong becomes the nearest scene that shows what was asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from janusflow.data.reflow import ReflowConfig, reflow
from janusflow.device import resolve_device, resolve_precision
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.tinyworld.captions import Clause, Task, describe, sample_pair
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.nearest import nearest_scene
from janusflow.tinyworld.scenes import Scene, render

SHARES = {
    "single_object": 0.05,
    "two_object": 0.26,
    "counting": 0.12,
    "colors": 0.04,
    "position": 0.32,
    "color_attr": 0.16,
    "dense": 0.05,
}
DESCRIBED = 0.08  # of the prompts are full descriptions
# The model's own states, half with guidance, up to about t = 2/3: what will be where is decided before, but shapes that
# are a mixture of two kinds can still become one of them.
ON_POLICY = tuple(
    ReflowConfig(steps=12, guidance=guidance, states=9, seed=seed, batch_size=96, shard_size=192)
    for guidance, seed in ((1.0, 30_000_000), (2.5, 30_010_000))
)
RIGHT_KEPT = 0.5  # of the pictures that are right already


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


def draw_pairs(
    model: str | Path, folder: Path, draws: Sequence[ReflowConfig], count: int, *, device: str = "auto"
) -> None:
    """Generate the pairs of a round, with their states, into folders in `folder`; a stopped round continues.

    Args:
        model: that draws.
        folder: of the round.
        draws: how its parts are drawn, of equal size; each one's seed decides what is asked for, too.
        count: pictures drawn.
        device: where.
    """
    place = resolve_device(device)
    pipeline = JanusFlow.from_pretrained(model, device=place, dtype=resolve_precision("auto", place))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for config in draws:
            tasks = sample_tasks(config.seed, count // len(draws))
            right: list[bool] = []
            correct = partial(_corrected, pool, tasks, right)
            prompts, part = [task.prompt for task in tasks], folder / f"guidance{config.guidance:g}"
            reflow(pipeline, prompts, part, config, correct=correct, names={"model": str(model)})
            if right:
                print(f"{part}: {sum(right) / len(right):.3f} of {len(right)} pictures were as asked")


def _corrected(
    pool: ProcessPoolExecutor,
    tasks: list[Task],
    right: list[bool],
    numbers: list[int],
    pictures: list[Image.Image],
) -> list[Image.Image | None]:
    asked, drawn = [tasks[number] for number in numbers], [np.asarray(picture) for picture in pictures]
    passed = [check(task, pixels).passed for task, pixels in zip(asked, drawn, strict=True)]
    right += passed
    nearest = pool.map(_nearest, asked, drawn, numbers, chunksize=8)
    left_out = [ok and Random(f"kept/{n}").random() >= RIGHT_KEPT for ok, n in zip(passed, numbers, strict=True)]
    return [None if out else picture for out, picture in zip(left_out, nearest, strict=True)]


def _nearest(task: Task, pixels: np.ndarray, number: int) -> Image.Image | None:
    scene = nearest_scene(task, pixels, Random(number))
    return None if scene is None else Image.fromarray(render(scene))
