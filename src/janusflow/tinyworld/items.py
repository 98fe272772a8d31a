"""The items of the tiny world's benchmark: prompts for pictures, and questions about rendered scenes.

The scenes of these prompts and questions were never trained on. `benchmark.py` runs and judges the items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from random import Random
from typing import Annotated

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.protocol import Item
from janusflow.tinyworld.captions import (
    GENEVAL_KINDS,
    HELD_OUT_KINDS,
    KINDS,
    Clause,
    Task,
    noun_phrase,
    sample_task,
    scene_for,
)
from janusflow.tinyworld.questions import MAKERS, sample_question, sample_talk
from janusflow.tinyworld.scenes import COLORS, SHAPES, Scene, render
from janusflow.tinyworld.spread import open_tasks

NEGATIVES = ("random", "popular", "adversarial")
ASKED = tuple(kind for kind in MAKERS if kind != "exists")
SPREAD = "open prompts"  # kind of the pictures whose diversity is measured
TURNS = 3  # turns per talk
TRIES = 200  # to find a scene for a dense prompt


@dataclass(frozen=True)
class WorldSettings:
    """Size and parts of the benchmark.

    Attributes:
        prompts: maximum number of prompts per kind of task, for seen and for unseen combinations.
        images: pictures per prompt.
        questions: number of questions per kind, and per set of yes/no questions.
        seed: seed of prompts, scenes and noise.
        all_kinds: whether unseen combinations and dense prompts are generated in addition to the six kinds.
        features: whether pictures are compared with rendered ones by the features of the shipped tower.
        spread: number of pictures for prompts that name only a shape; 0 for none. They measure the total variation
            between what such prompts leave open and how scenes are sampled. Each of the four factors is read from all
            of these pictures.
    """

    prompts: Annotated[int, Interval(ge=0, le=100_000)] = 100
    images: Annotated[int, Interval(ge=1, le=1000)] = 4
    questions: Annotated[int, Interval(ge=0, le=100_000)] = 100
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    all_kinds: bool = True
    features: bool = True
    spread: Annotated[int, Interval(ge=0, le=1_000_000)] = 0


def tasks(kind: str, count: int, *, held_out: bool, seed: int = 0) -> list[Task]:
    """Return up to `count` tasks with distinct prompts, each of which a scene can show."""
    rng = Random(f"evaluation-{seed}-{kind}-{held_out}")
    found: dict[str, Task] = {}
    for _ in range(50 * count):
        task = sample_task(rng, kind, held_out=held_out)
        if kind != "dense" or _has_scene(task):
            found.setdefault(task.prompt, task)
        if len(found) == count:
            break
    return list(found.values())


def _has_scene(task: Task) -> bool:
    """Return whether there is room for all shapes of a dense prompt; a few ask for more than fits."""
    rng = Random(task.prompt)
    return any(scene_for(rng, task, training=False) is not None for _ in range(TRIES))


def to_generate(options: WorldSettings) -> list[tuple[Item, Task]]:
    """Return the prompts of all kinds, each with the task that its pictures are checked against."""
    found = []
    for kind, held in product(KINDS, (False, True)):
        if held and kind not in HELD_OUT_KINDS:
            continue
        if not options.all_kinds and (held or kind not in GENEVAL_KINDS):
            continue
        label = f"{kind}, never seen" if held else kind
        for number, task in enumerate(tasks(kind, options.prompts, held_out=held, seed=options.seed)):
            group = f"draw/{kind}{'-held' if held else ''}/{number:04d}"
            data = {"kind": label, "task": asdict(task)}
            for image in range(options.images):
                seed = options.seed + number * options.images + image
                found.append((Item(f"{group}-{image}", task.prompt, seed=seed, group=group, data=data), task))
    for number, task in enumerate(open_tasks(options.spread)):
        seed = options.seed + number
        found.append((Item(f"draw/open/{number:05d}", task.prompt, seed=seed, data={"kind": SPREAD}), task))
    return found


def to_answer(options: WorldSettings) -> list[Item]:
    """Return the questions: yes/no questions with three kinds of negatives, all other kinds, and talks."""
    count, items = options.questions, []
    scenes = [_scene(options, f"exists-{n}") for n in range(count)]
    common = Counter((shape.color, shape.kind) for scene in scenes for shape in scene.shapes)
    for negatives in NEGATIVES:
        for number, scene in enumerate(scenes):
            rng = Random(f"world-{options.seed}-{negatives}-{number}")
            pair, there = asked_pair(rng, scene, negatives, common, wanted=number % 2 == 0)
            text = f"is there {noun_phrase(Clause(pair[1], color=pair[0]))}?"
            key = f"ask/exists-{negatives}/{number:04d}"
            item = _asked(key, f"exists, {negatives}", scene, [(text, "yes" if there else "no")])
            items.append(replace(item, group=f"ask/exists/{number:04d}"))
    for kind in (*ASKED, "talk"):
        made = 0
        for number in range(50 * count):
            scene = _scene(options, f"{kind}-{number}")
            rng = Random(f"world-{options.seed}-ask-{kind}-{number}")
            if kind == "talk":
                talk = [(q.text, q.answer) for q in sample_talk(rng, scene, TURNS)]
            else:
                question = sample_question(rng, scene, kind)
                talk = [] if question is None else [(question.text, question.answer)]
            if talk:
                items.append(_asked(f"ask/{kind}/{made:04d}", kind, scene, talk))
                made += 1
            if made == count:
                break
    return items


def _asked(key: str, kind: str, scene: Scene, talk: Sequence[tuple[str, str]]) -> Item:
    questions, answers = ([pair[side] for pair in talk] for side in (0, 1))
    data = {"kind": kind, "questions": questions, "answers": answers}
    return Item(key, questions[0], (Image.fromarray(render(scene)),), system=None, data=data)


def _scene(options: WorldSettings, name: str) -> Scene:
    """Sample a scene of any kind, including unseen combinations."""
    rng, scene = Random(f"world-{options.seed}-{name}"), None
    while scene is None:
        scene = scene_for(rng, sample_task(rng, rng.choice(KINDS)), training=False)
    return scene


def asked_pair(
    rng: Random, scene: Scene, negatives: str, common: Counter[tuple[str, str]], *, wanted: bool
) -> tuple[tuple[str, str], bool]:
    """Choose a (color, kind) pair to ask for, and return it with whether the scene shows it.

    Args:
        rng: the only source of randomness.
        scene: scene that the question is about.
        negatives: how a "no" is chosen: "random" takes any absent pair, "popular" takes the absent pair that is most
            frequent in all scenes, and "adversarial" takes a color and a kind that are both present but not together.
            If there are none, "adversarial" takes an absent pair whose color or kind is present.
        common: number of shapes of each pair in all scenes.
        wanted: whether the answer should be yes.
    """
    present = sorted({(shape.color, shape.kind) for shape in scene.shapes})
    if wanted:
        return rng.choice(present), True
    absent = [pair for pair in product(COLORS, SHAPES) if pair not in present]
    if negatives == "popular":
        most = max(common[pair] for pair in absent)
        absent = [pair for pair in absent if common[pair] == most]
    if negatives == "adversarial":
        swapped = [(a[0], b[1]) for a, b in product(present, present) if (a[0], b[1]) not in present]
        near = [pair for pair in absent if any(pair[0] == c or pair[1] == k for c, k in present)]
        absent = swapped or near
    return rng.choice(absent), False
