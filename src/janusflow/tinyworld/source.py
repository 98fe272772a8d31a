"""A data source that renders endless scenes, with captions, conversations and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Literal

import numpy as np
from PIL import Image

from janusflow.arguments import quoted
from janusflow.data.constraints import NonNegativeInt, PositiveInt, Share
from janusflow.data.records import Record
from janusflow.data.reflow import Accept
from janusflow.data.regions import Region
from janusflow.data.sources import SourceConfig
from janusflow.tinyworld.captions import KINDS, Clause, Task, describe, noun_phrase, sample_pair
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.questions import sample_fact, sample_talk
from janusflow.tinyworld.scenes import UNITS, Scene, render


@dataclass(frozen=True)
class TinyworldConfig(SourceConfig):
    """Configuration of the tiny world's scenes.

    Attributes:
        shares: shares of the kinds of scenes; equal by default.
        questions: maximum number of questions per scene; at least half as many are asked. They share the scene's
            tokens.
        described: share of the pictures to generate whose text is the full description of the scene.
        scenes: number of records, so that `data.cache` can hold their latents; 0 for endless records. Once all have
            been shown, they repeat in another order.
    """

    kind: Literal["tinyworld"] = "tinyworld"
    shares: dict[str, float] = field(default_factory=dict)
    questions: PositiveInt = 4
    described: Share = 0.0
    scenes: NonNegativeInt = 0

    @property
    def image_size(self) -> int:
        return UNITS

    def check(self, task: str, *, checkpoint: bool) -> None:
        super().check(task, checkpoint=checkpoint)
        if self.path:
            raise ValueError(
                f"tinyworld renders its scenes, so it cannot read {quoted(self.path)}; to read data, replace the whole "
                "source, as in {kind: folder, path: my_pictures}"
            )
        if unknown := [kind for kind in self.shares if kind not in KINDS]:
            raise ValueError(f"tinyworld has no scenes {quoted(unknown[0])}; choose from {', '.join(KINDS)}")
        shares = self.shares.values()
        if shares and not (all(0 <= share < inf for share in shares) and sum(shares) > 0):
            raise ValueError(f"tinyworld's shares are {self.shares}; expected none below 0 and at least one above")

    def open(self, task: str, seed: int, rank: int, ranks: int) -> TinyworldSource:
        return TinyworldSource(self, task, seed)

    def replayed(self, seed: int, count: int) -> tuple[list[str], Accept]:
        tasks = old_tasks(seed, count)
        return [task.prompt for task in tasks], right_ones(tasks)


class TinyworldSource:
    """Endless scenes of the tiny world; record n is a function of (seed, task, n).

    Args:
        config: configuration of the scenes.
        task: understanding (talks), generation (captions), or text (facts, captions, questions about descriptions).
        seed: seed of all random choices.
    """

    def __init__(self, config: TinyworldConfig, task: str, seed: int) -> None:
        self.config, self.task, self.seed = config, task, seed
        self.length = config.scenes or None
        self.shares = dict(config.shares) or dict.fromkeys(KINDS, 1.0)

    def record(self, index: int) -> Record:
        rng, config = Random(f"{self.task}/{self.seed}/{index}"), self.config
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        name = f"tinyworld {self.task} {index}"
        if self.task == "text" and rng.random() < 0.1:
            facts = tuple((fact.text, fact.answer) for fact in (sample_fact(rng) for _ in range(3)))
            return Record(name, turns=facts)
        task, scene = sample_pair(rng, kind)
        if self.task == "generation":
            text = describe(scene) if rng.random() < config.described else task.prompt
            return Record(name, (Image.fromarray(render(scene)),), text=text, regions=regions_of(scene))
        if self.task == "text" and rng.random() < 0.1:
            return Record(name, text=task.prompt)
        turns = rng.randint(max(config.questions // 2, 1), config.questions)
        talk = [(spelled(rng, q.text), q.answer) for q in sample_talk(rng, scene, turns)]
        if self.task == "understanding":
            return Record(name, (Image.fromarray(render(scene)),), turns=tuple(talk))
        (first, answer), *rest = talk
        return Record(name, turns=((f"{describe(scene)}\n{first}", answer), *rest))


def regions_of(scene: Scene) -> tuple[Region, ...]:
    """Return the boxes around a scene's shapes, with their sizes, colors and kinds."""
    found = []
    for shape in scene.shapes:
        sides = (shape.x - shape.radius, shape.y - shape.radius, shape.x + shape.radius, shape.y + shape.radius)
        shares = (min(max(side / UNITS, 0.0), 1.0) for side in sides)
        found.append(Region(noun_phrase(Clause(shape.kind, 1, shape.color, shape.size)), *shares))
    return tuple(found)


def spelled(rng: Random, question: str) -> str:
    """Vary the spelling of a question as people do."""
    if rng.random() < 0.3:
        question = question.replace("color", "colour")
    return question[0].upper() + question[1:] if rng.random() < 0.3 else question


def old_tasks(seed: int, count: int) -> list[Task]:
    """Return tasks that the model has learned, with the same number of each kind."""
    return [sample_pair(Random(f"old/{seed}/{n}"), KINDS[n % len(KINDS)])[0] for n in range(count)]


def right_ones(tasks: list[Task]) -> Accept:
    """Return a function that accepts the pictures that the checker passes."""
    return lambda number, picture: check(tasks[number], np.asarray(picture)).passed
