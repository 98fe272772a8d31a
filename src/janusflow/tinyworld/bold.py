"""Bold scenes: shapes are not small, and their colors not close to the background's, unless the prompt says so.

Small pale shapes are the hardest to generate, and "a star" does not ask for one. Real data sets for generation are
filtered by appearance, and those of the tiny world are bold. Questions are about scenes of all kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from janusflow.tinyworld.captions import Clause, Task, reworded, sample_task, scene_for, unnamed
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Scene, held_out_relation

CONTRAST = 100.0  # least distance in RGB of a shape's colour from the background
OPEN_CONTRAST = 150.0  # the same, for colors that the prompt leaves open
LARGE = ("medium", "large")
FEW = 2  # up to this number of shapes are medium or large; up to `MANY` are medium
MANY = 4
ALIKE = 0.6  # share of groups without a named color whose shapes have the same one
TRIES = 8


def bold_pair(rng: Random, kind: str) -> tuple[Task, Scene]:
    """Sample a training pair like `sample_pair`, with a bold scene."""
    while True:
        task = sample_task(rng, kind)
        scene = bold_scene(rng, task)
        if scene is not None:
            return task, scene


def ordered_pair(rng: Random) -> tuple[str, str, Scene]:
    """Sample a prompt of two objects that leaves their order open, the same prompt with a relation, and a scene.

    The relation follows from the objects' kinds (`first_stands`). Some objects have a named color.
    """
    while True:
        task = sample_task(rng, rng.choice(("two_object", "two_object", "color_attr")))
        clauses = tuple(replace(c, color=c.color if rng.random() < 0.6 else None) for c in task.clauses)
        plain, clear = reworded(rng, replace(task, clauses=clauses), first_stands(*(clause.kind for clause in clauses)))
        scene = bold_scene(rng, clear)
        if scene is not None:
            return plain.prompt, clear.prompt, scene


def unnamed_pair(rng: Random) -> tuple[str, str, Scene]:
    """Sample a prompt that relates two objects but does not name both, the same with both named, and a scene."""
    while True:
        plain, clear = unnamed(rng, sample_task(rng, "position"))
        scene = bold_scene(rng, clear)
        if scene is not None:
            return plain.prompt, clear.prompt, scene


def first_stands(first: str, second: str) -> str:
    """Return where the first of two objects is placed if a prompt leaves it open: above the second, or left of it.

    It is "left of" if training never shows the first above the second, or above most other kinds.
    """
    kept = [held_out_relation(first, "above", kind) for kind in SHAPES]
    return "left of" if held_out_relation(first, "above", second) or 2 * sum(kept) >= len(SHAPES) else "above"


def bold_scene(rng: Random, task: Task) -> Scene | None:
    """Sample a bold scene of a task; None if none was found that training may show.

    Open sizes follow the number of shapes (`open_sizes`). An open background contrasts with the named colors, and open
    colors contrast with the background.
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
    """Choose the colors of a clause's shapes; several are mostly the same."""
    alike = clause.color or (rng.choice(open_colors) if rng.random() < ALIKE else None)
    return [alike or rng.choice(open_colors) for _ in range(clause.count)]


def open_sizes(clauses: Sequence[Clause]) -> tuple[str, ...]:
    """Return the allowed open sizes for this number of shapes (one clause each)."""
    return LARGE if len(clauses) <= FEW else LARGE[:1] if len(clauses) <= MANY else tuple(SIZES)


def backgrounds(clauses: Sequence[Clause]) -> list[str]:
    """Return the backgrounds that contrast with the named colors, or those that contrast most."""
    named = [clause.color for clause in clauses if clause.color]
    least = {name: min((contrast(color, name) for color in named), default=CONTRAST) for name in BACKGROUNDS}
    enough = min(CONTRAST, max(least.values()))
    return [name for name in BACKGROUNDS if least[name] >= enough]


def standing_out(background: str, least: float = OPEN_CONTRAST) -> list[str]:
    """Return the colors with at least this distance from a background in RGB."""
    return [color for color in COLORS if contrast(color, background) >= least]


def contrast(color: str, background: str) -> float:
    """Return the distance of a color of `COLORS` from a background in RGB."""
    return math.dist(COLORS[color], BACKGROUNDS[background])
