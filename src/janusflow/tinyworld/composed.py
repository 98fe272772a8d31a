"""Composed scenes: what a short prompt leaves open is arranged as in a photograph.

One subject is large and in the middle, two are one above the other, and counted shapes are in rows and have one color.
If a prompt can be shown in thousands of ways, a flow first learns their mean, and a small model stays there for long;
with composed scenes it learns the words within hours (docs/log.md). Places, sizes and colors that a prompt names are
kept, and full descriptions have scenes of all kinds.
"""

from __future__ import annotations

from random import Random

from janusflow.tinyworld.bold import backgrounds, bold_scene, first_stands, standing_out
from janusflow.tinyworld.captions import Task, sample_task
from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    COLORS,
    SIZES,
    UNITS,
    Scene,
    Shape,
    is_held_out,
    stand_apart,
    tinted,
)

MIDDLE, ASIDE = UNITS // 2, 14  # units; distance of several shapes from the middle
PLACES = {
    "above": ((0, -1), (0, 1)),
    "below": ((0, 1), (0, -1)),
    "left of": ((-1, 0), (1, 0)),
    "right of": ((1, 0), (-1, 0)),
}
ROWS = {1: ((0, 0),), 2: ((-1, 0), (1, 0)), 3: ((-1, -1), (1, -1), (0, 1)), 4: ((-1, -1), (1, -1), (-1, 1), (1, 1))}
JITTER = 2  # units, in each direction
TRIES = 12


def composed_pair(rng: Random, kind: str) -> tuple[Task, Scene]:
    """Sample a training pair like `sample_pair`, with a composed scene, or a bold one for dense prompts."""
    while True:
        task = sample_task(rng, kind)
        scene = bold_scene(rng, task) if kind == "dense" else composed_scene(rng, task)
        if scene is not None:
            return task, scene


def composed_scene(rng: Random, task: Task) -> Scene | None:
    """Sample a composed scene of a task of up to four shapes; None if none was found that training may show.

    Raises:
        ValueError: for a task that names places or has more shapes.
    """
    clauses = [clause for clause in task.clauses for _ in range(clause.count)]
    if len(clauses) not in ROWS or any(clause.region for clause in clauses):
        raise ValueError(f"{task.prompt!r} names places, or not 1 to {max(ROWS)} shapes, so it cannot be composed")
    places = ROWS[len(clauses)]
    if len(task.clauses) == 2:
        first, second = task.clauses
        places = PLACES[task.relation or first_stands(first.kind, second.kind)]
    for _ in range(TRIES):
        background = task.background or rng.choice(backgrounds(clauses))
        colors = {clause: clause.color or rng.choice(standing_out(background)) for clause in task.clauses}
        shapes = []
        for clause, (x, y) in zip(clauses, places, strict=True):
            size, color = clause.size or ("large" if len(clauses) == 1 else "medium"), colors[clause]
            x, y = (MIDDLE + ASIDE * offset + rng.randint(-JITTER, JITTER) for offset in (x, y))
            shapes.append(Shape(clause.kind, color, x, y, rng.choice(SIZES[size]), tinted(rng, COLORS[color])))
        scene = Scene(tuple(shapes), background, tinted(rng, BACKGROUNDS[background]))
        if stand_apart(scene.shapes) and not is_held_out(scene):
            return scene
    return None
