"""Composed scenes: what a short prompt leaves open is decided as whoever takes a picture decides it.

A subject stands large and in the middle, two stand one above the other, what is counted stands in rows and is of one
colour. Of pictures that may show the same words in thousands of ways a flow learns a mean at first, and a small model
stays with it for long; of composed ones it learns what the words say within hours (docs/log.md). Places, sizes and
colours that a prompt names are as it names them, and full descriptions have scenes of all kinds.
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

MIDDLE, ASIDE = UNITS // 2, 14  # units; how far from the middle several shapes stand
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
    """A training pair as `sample_pair` draws it, with a composed scene; a bold one of dense prompts."""
    while True:
        task = sample_task(rng, kind)
        scene = bold_scene(rng, task) if kind == "dense" else composed_scene(rng, task)
        if scene is not None:
            return task, scene


def composed_scene(rng: Random, task: Task) -> Scene | None:
    """A composed scene that shows exactly a task of up to four shapes; None if training may show none that was found.

    Raises:
        ValueError: for a task that names places or has more shapes.
    """
    clauses = [clause for clause in task.clauses for _ in range(clause.count)]
    if len(clauses) not in ROWS or any(clause.region for clause in clauses):
        raise ValueError(f"{task.prompt!r} names places, or not 1 to {max(ROWS)} shapes; no scene of it is composed")
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
