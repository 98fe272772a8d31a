"""Bold scenes: what a prompt leaves open is not small, and not of a colour near to the background's.

Small pale shapes are the hardest to draw, and nobody asks for them by "a star": as real data sets of pictures to draw
are filtered for their looks, the tiny world's are bold. Questions are asked about scenes of all kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from janusflow.tinyworld.captions import Clause, Task, reworded, sample_task, scene_for, unnamed
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Scene, held_out_relation

CONTRAST = 100.0  # least distance in RGB of a shape's colour from the background
OPEN_CONTRAST = 150.0  # the same, where a picture is to be as clear as can be
LARGE = ("medium", "large")
FEW = 2  # shapes that are medium or large; up to `MANY` are medium
MANY = 4
ALIKE = 0.6  # of several shapes without a colour of their own
TRIES = 8


def bold_pair(rng: Random, kind: str) -> tuple[Task, Scene]:
    """A training pair as `sample_pair` draws it, with a bold scene."""
    while True:
        task = sample_task(rng, kind)
        scene = bold_scene(rng, task)
        if scene is not None:
            return task, scene


def ordered_pair(rng: Random) -> tuple[str, str, Scene]:
    """A prompt of two objects that leaves open who stands where, the same with a relation that decides it, and a scene.

    The relation follows from the objects' kinds (`first_stands`). Of some objects the colour is named.
    """
    while True:
        task = sample_task(rng, rng.choice(("two_object", "two_object", "color_attr")))
        clauses = tuple(replace(c, color=c.color if rng.random() < 0.6 else None) for c in task.clauses)
        plain, clear = reworded(rng, replace(task, clauses=clauses), first_stands(*(clause.kind for clause in clauses)))
        scene = bold_scene(rng, clear)
        if scene is not None:
            return plain.prompt, clear.prompt, scene


def unnamed_pair(rng: Random) -> tuple[str, str, Scene]:
    """A prompt that says how two objects stand but not of both what they are, the same with both named, and a scene."""
    while True:
        plain, clear = unnamed(rng, sample_task(rng, "position"))
        scene = bold_scene(rng, clear)
        if scene is not None:
            return plain.prompt, clear.prompt, scene


def first_stands(first: str, second: str) -> str:
    """Where of two objects the first one stands, if a prompt leaves it open: above the second, or to the left of it.

    To the left where training never shows the first above the second, or above most others that it could stand on.
    """
    kept = [held_out_relation(first, "above", kind) for kind in SHAPES]
    return "left of" if held_out_relation(first, "above", second) or 2 * sum(kept) >= len(SHAPES) else "above"


def bold_scene(rng: Random, task: Task) -> Scene | None:
    """A bold scene that shows exactly the task; None if none was found that training may show.

    Sizes that the task leaves open follow the number of shapes (`open_sizes`). The background is one on which the
    colours that it names stand out, unless it names one, and colours that it leaves open do.
    """
    clauses = [clause for clause in task.clauses for _ in range(clause.count)]
    sizes = open_sizes(clauses)
    for _ in range(TRIES):
        background = task.background or rng.choice(backgrounds(clauses))
        open_colors = standing_out(background, CONTRAST)
        decided = [
            replace(one, count=1, color=color, size=one.size or rng.choice(sizes))
            for clause in task.clauses
            for one, color in zip([clause] * clause.count, _colors(rng, clause, open_colors), strict=True)
        ]
        scene = scene_for(rng, replace(task, clauses=tuple(decided), background=background))
        if scene is not None:
            return scene
    return None


def _colors(rng: Random, clause: Clause, open_colors: Sequence[str]) -> list[str]:
    """Of each of the clause's shapes; several are mostly alike."""
    alike = clause.color or (rng.choice(open_colors) if rng.random() < ALIKE else None)
    return [alike or rng.choice(open_colors) for _ in range(clause.count)]


def open_sizes(clauses: Sequence[Clause]) -> tuple[str, ...]:
    """What a shape may be, of so many (one clause each), whose size is left open."""
    return LARGE if len(clauses) <= FEW else LARGE[:1] if len(clauses) <= MANY else tuple(SIZES)


def backgrounds(clauses: Sequence[Clause]) -> list[str]:
    """Those on which the colours that are named stand out, or stand out most."""
    named = [clause.color for clause in clauses if clause.color]
    least = {name: min((contrast(color, name) for color in named), default=CONTRAST) for name in BACKGROUNDS}
    enough = min(CONTRAST, max(least.values()))
    return [name for name in BACKGROUNDS if least[name] >= enough]


def standing_out(background: str, least: float = OPEN_CONTRAST) -> list[str]:
    """The colours that are at least so far from a background in RGB."""
    return [color for color in COLORS if contrast(color, background) >= least]


def contrast(color: str, background: str) -> float:
    """Distance in RGB of a colour of `COLORS` from a background."""
    return math.dist(COLORS[color], BACKGROUNDS[background])
