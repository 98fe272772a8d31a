"""Find the scene of a task that a generated picture is closest to: what the picture should have been."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, permutations
from random import Random

import numpy as np

from janusflow.tinyworld.bold import backgrounds, open_sizes, standing_out
from janusflow.tinyworld.captions import Clause, Task, scene_for
from janusflow.tinyworld.checker import matches, read
from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    COLORS,
    PALETTE,
    SIZES,
    UNITS,
    Scene,
    Shape,
    clearly,
    is_held_out,
    render,
    stand_apart,
)

STARTS, MOST_STARTS = 24, 200
MOVES = 260
SIDE = 16  # pixels at which pictures are compared
STEP = 4.0  # standard deviation of a small move
IN_ORDER = 0.25  # of nearness, for shapes in the order of the prompt
BESIDE = 0.4  # of that, where of two shapes the first stands to the left and not above


def nearest_scene(task: Task, pixels: np.ndarray, rng: Random) -> Scene | None:
    """Search randomly for a bold scene that shows the task exactly and looks similar to a picture.

    What the picture has right stays where it is; what it has wrong is changed, moved or left out. Bold: what the task
    leaves open is not small and not of a colour near to the background's. Such shapes differ least from a picture that
    is still without any, so the nearest of all scenes would be one of small pale shapes, which are the hardest to draw
    (docs/log.md). For the same reason near is the scene s whose difference from its background explains most of the
    picture's p, (<s, p> + <|s|, |p|>) / |s| with |s| of a pixel and of all, and not the one of least distance. Colours
    are those of `COLORS` and `BACKGROUNDS` to the digit.

    Where the picture is wrong and the task leaves open what stands where ("a star and a square", but two stars are
    drawn), what is named first tends to stand above, or else to the left: otherwise each of the two would become the
    square by chance, and a mean of both be learned. Of more than two shapes neighbours are ordered in either way.

    Args:
        task: what the scene shows.
        pixels: (64, 64, 3) uint8.
        rng: the only source of randomness.

    Returns:
        The scene, never one that is kept from training; None if no scene of the task was found at all.
    """
    clauses = [clause for clause in task.clauses for _ in range(clause.count)]
    goal = _small(pixels) - np.median(pixels.reshape(-1, 3), axis=0).astype(np.float32)

    there = np.linalg.norm(goal, axis=-1)
    drawn = read(pixels).scene
    order = 0.0 if drawn is not None and matches(task, drawn).passed else IN_ORDER

    def nearness(scene: Scene) -> float:
        shown = _small(render(scene)) - np.asarray(scene.background_rgb, np.float32)
        each = np.linalg.norm(shown, axis=-1)
        explained = float(((shown * goal).sum() + (each * there).sum()) / np.linalg.norm(each))
        return explained * (1 + order * _in_order(clauses, scene))

    starts = _starts(task, clauses, pixels, drawn, rng)
    found = [(nearness(scene), -number, scene) for number, scene in enumerate(starts)]
    if not found:
        return None
    best, _, scene = max(found)
    for _ in range(MOVES):
        other = _moved(scene, clauses, rng)
        if _shows(task, clauses, other):
            near = nearness(other)
            if near > best:
                best, scene = near, other
    return scene


def _radii(clause: Clause, clauses: list[Clause]) -> list[int]:
    return [radius for size in ([clause.size] if clause.size else open_sizes(clauses)) for radius in SIZES[size]]


def _background(task: Task, pixels: np.ndarray) -> str:
    """Return the task's background, or the closest to the picture's that contrasts with the task's colors."""
    if task.background:
        return task.background
    median = np.median(pixels.reshape(-1, 3), axis=0)
    return min(backgrounds(task.clauses), key=lambda name: math.dist(median, BACKGROUNDS[name]))


def _starts(task: Task, clauses: list[Clause], pixels: np.ndarray, shown: Scene | None, rng: Random) -> Iterator[Scene]:
    """Yield scenes on the picture's background: with shapes where the picture has some, and random ones."""
    background = _background(task, pixels)
    orders = permutations(shown.shapes, len(clauses)) if shown else ()
    drawn: list[Scene] = []
    sizes = open_sizes(clauses)
    for tried in range(MOST_STARTS):  # crowded tasks rarely find a place for everything
        if tried >= STARTS and drawn:
            break
        sized = replace(task, clauses=tuple(replace(c, size=c.size or rng.choice(sizes)) for c in task.clauses))
        scene = scene_for(rng, sized)
        drawn += [] if scene is None else [scene]
    for shapes in [*orders, *(scene.shapes for scene in drawn)]:
        fitted = tuple(
            _fitted(clause, shape, _radii(clause, clauses), standing_out(background))
            for clause, shape in zip(clauses, shapes, strict=True)
        )
        scene = Scene(fitted, background, BACKGROUNDS[background])
        if _shows(task, clauses, scene):
            yield scene


def _fitted(clause: Clause, shape: Shape, radii: list[int], colors: list[str]) -> Shape:
    """What the clause names, in the place and as far as it leaves that open near to the size and colour of a shape.

    As training draws it: whole units, a radius that exists, a colour without tint.
    """
    color = clause.color or min(colors, key=lambda name: math.dist(COLORS[name], PALETTE[shape.color]))
    radius = min(radii, key=lambda r: abs(r - shape.radius))
    return Shape(clause.kind, color, round(shape.x), round(shape.y), radius, COLORS[color])


def _moved(scene: Scene, clauses: list[Clause], rng: Random) -> Scene:
    """Return the scene with one shape moved, resized or recolored, or two exchanged."""
    index = rng.randrange(len(scene.shapes))
    shape, clause, chance = scene.shapes[index], clauses[index], rng.random()
    shapes = list(scene.shapes)
    if chance < 0.5:
        step = round(rng.gauss(0, STEP)), round(rng.gauss(0, STEP))
        shapes[index] = replace(shape, x=shape.x + step[0], y=shape.y + step[1])
    elif chance < 0.65:
        shapes[index] = replace(shape, x=rng.randrange(UNITS), y=rng.randrange(UNITS))
    elif chance < 0.8:
        shapes[index] = replace(shape, radius=rng.choice(_radii(clause, clauses)))
    elif chance < 0.95 and clause.color is None:
        color = rng.choice(standing_out(scene.background))
        shapes[index] = replace(shape, color=color, rgb=COLORS[color])
    else:
        other = rng.randrange(len(shapes))
        here, there = shapes[index], shapes[other]
        shapes[index], shapes[other] = replace(here, x=there.x, y=there.y), replace(there, x=here.x, y=here.y)
    return replace(scene, shapes=tuple(shapes))


def _in_order(clauses: list[Clause], scene: Scene) -> float:
    """Return the share of neighbors of different clauses whose first is above or left, by the larger distance."""
    left = BESIDE if len(clauses) == 2 else 1.0
    held = []
    for (first, second), (a, b) in zip(pairwise(clauses), pairwise(scene.shapes), strict=True):
        if first != second:
            dx, dy = b.x - a.x, b.y - a.y
            held.append(left * (dx > 0) if abs(dx) > abs(dy) else float(dy > 0))
    return sum(held) / len(held) if held else 0.0


def _shows(task: Task, clauses: list[Clause], scene: Scene) -> bool:
    """Return whether the shapes are those of the clauses, in their order, and training may show the scene."""
    for clause, shape in zip(clauses, scene.shapes, strict=True):
        wanted = (clause.kind, clause.color or shape.color, clause.size or shape.size, clause.region or shape.region)
        if wanted != (shape.kind, shape.color, shape.size, shape.region):
            return False
    if task.relation and not clearly(task.relation, scene.shapes[0], scene.shapes[1]):
        return False
    return stand_apart(scene.shapes) and not is_held_out(scene)


def _small(pixels: np.ndarray) -> np.ndarray:
    """Reduce (64, 64, 3) to means of cells, (16, 16, 3) float32."""
    cell = UNITS // SIDE
    return pixels.reshape(SIDE, cell, SIDE, cell, 3).astype(np.float32).mean(axis=(1, 3))
