"""Read a picture back into a scene, and check whether it shows what a prompt asks for.

Reading is analysis by synthesis. `read` measures the background and the connected patches on it, fits every kind of
shape to each patch, and renders the resulting scene again. If the rendering leaves something unexplained (noise, blur,
a half-rendered shape, something that is not a shape), the picture is unreadable, and an unreadable picture passes no
task.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from scipy import ndimage

from janusflow.tinyworld.captions import Clause, Task
from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    MAX_SHAPES,
    PALETTE,
    RESERVED_SHAPES,
    SHAPES,
    UNITS,
    Scene,
    Shape,
    coverage,
    covered,
    relations,
)

BACKGROUND_DISTANCE = 40.0  # RGB distance within which a pixel counts as a background color
BACKGROUND_SHARE = 0.35  # smallest share of the picture that must be background
FOREGROUND_DISTANCE = 28.0  # RGB distance from the background beyond which a pixel counts as foreground
COLOR_DISTANCE = 60.0  # RGB distance from every color beyond which a patch is unnamed
MIN_AREA = 40.0  # square units; the smallest shape covers about 75
MIN_FIT = 0.80  # intersection over union of a patch and the shape it is read as
MIN_LEAD = 0.02  # margin by which the best kind must fit better than the next
RADII = (5.0, 15.0)  # units; the radii in scenes are 6 to 13
MEAN_RESIDUAL = 5.0  # grey levels, over the picture
PATCH_RESIDUAL = 42.0  # grey levels, over any square of PATCH x PATCH units
PATCH = 4
QUANTUM = 4  # shapes are fitted in steps of a quarter pixel
PLACE_SLACK = 2  # units by which a shape may lie outside the ninth of the picture that the prompt names


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    Attributes:
        scene: the shapes found, or None if the picture cannot be read.
        problem: why the picture cannot be read, as a short sentence; empty if it can.
    """

    scene: Scene | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows a task; `problem` is empty if it does."""

    passed: bool
    problem: str = ""


@dataclass(frozen=True)
class _Fit:
    kind: str
    score: float
    x: float
    y: float
    radius: float


def read(pixels: np.ndarray) -> Reading:
    """Return the scene that a picture shows.

    Args:
        pixels: (S, S, 3) uint8, any S.

    Raises:
        ValueError: if the array has another shape or type.

    Example:
        >>> from random import Random
        >>> from janusflow.tinyworld.scenes import render, sample_scene
        >>> scene = sample_scene(Random(0), [])
        >>> read(render(scene)).scene.background == scene.background
        True
    """
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"the picture is {pixels.shape} {pixels.dtype}; expected a square (S, S, 3) of uint8")
    image = pixels.astype(np.float32)
    name, background, share = _background(image)
    if share < BACKGROUND_SHARE:
        return Reading(None, f"no plain background: {name} fills {share:.0%}")
    scale = image.shape[0] / UNITS
    distance = np.linalg.norm(image - background, axis=-1)
    labels, _ = ndimage.label(distance > FOREGROUND_DISTANCE, structure=np.ones((3, 3)))
    explained = np.broadcast_to(background, image.shape).copy()
    shapes: list[Shape] = []
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == index
        if mask.sum() < MIN_AREA / 2 * scale**2:
            continue  # a speck, which counts in the residual
        shape = _read_patch(image, distance, mask, window, background, scale, explained)
        if isinstance(shape, str):
            return Reading(None, shape)
        shapes.append(shape)
    problem = _unexplained(image, explained, scale)
    if not problem and len(shapes) > MAX_SHAPES:
        problem = f"{len(shapes)} shapes, more than any scene has"
    if problem:
        return Reading(None, problem)
    red, green, blue = (int(value) for value in background)
    return Reading(Scene(tuple(shapes), name, (red, green, blue)))


def check(task: Task, pixels: np.ndarray) -> Verdict:
    """Check whether a picture shows exactly the shapes of a task, in the places and colors that the task names.

    Example:
        >>> from random import Random
        >>> from janusflow.tinyworld.captions import sample_task, scene_for
        >>> from janusflow.tinyworld.scenes import render
        >>> rng = Random(0)
        >>> task = sample_task(rng, "single_object")
        >>> check(task, render(scene_for(rng, task, training=False))).passed
        True
    """
    return verdict_on(task, read(pixels))


def verdict_on(task: Task, reading: Reading) -> Verdict:
    """Check whether a picture that was read shows exactly what a task says."""
    return Verdict(False, reading.problem) if reading.scene is None else matches(task, reading.scene)


def matches(task: Task, scene: Scene) -> Verdict:
    """Check whether a scene shows exactly what a task says."""
    wanted = [clause for clause in task.clauses for _ in range(clause.count)]
    found = scene.shapes
    if len(found) != len(wanted):
        return Verdict(False, f"{len(found)} shapes, not {len(wanted)}")
    if task.background is not None and scene.background != task.background:
        return Verdict(False, f"the background is {scene.background}, not {task.background}")
    fitting = [p for p in permutations(found) if all(_fits(c, s) for c, s in zip(wanted, p, strict=True))]
    if not fitting:
        seen = ", ".join(f"{shape.size} {shape.color} {shape.kind} ({shape.region})" for shape in found)
        return Verdict(False, f"shows {seen}")
    if task.relation is not None and not any(task.relation in relations(p[0], p[1]) for p in fitting):
        return Verdict(False, f"the {wanted[0].kind} is not {task.relation} the {wanted[1].kind}")
    return Verdict(True)


def _fits(clause: Clause, shape: Shape) -> bool:
    return (
        clause.kind == shape.kind
        and clause.color in (None, shape.color)
        and clause.size in (None, shape.size)
        and (clause.region is None or _lies_in(clause.region, shape))
    )


def _lies_in(region: str, shape: Shape) -> bool:
    """Return whether a shape is in a ninth of the picture, or at most `PLACE_SLACK` units outside it."""
    steps = (-PLACE_SLACK, 0, PLACE_SLACK)
    moved = (Shape(shape.kind, shape.color, shape.x + dx, shape.y + dy, 0, shape.rgb) for dx in steps for dy in steps)
    return any(other.region == region for other in moved)


def _background(image: np.ndarray) -> tuple[str, np.ndarray, float]:
    """Return the name, color (3,) and share of the most frequent background."""
    names = list(BACKGROUNDS)
    distances = np.stack([np.linalg.norm(image - np.array(BACKGROUNDS[name], np.float32), axis=-1) for name in names])
    nearest = np.where(distances.min(axis=0) < BACKGROUND_DISTANCE, distances.argmin(axis=0), -1)
    shares = [(nearest == index).mean() for index in range(len(names))]
    best = int(np.argmax(shares))
    if not shares[best]:
        return names[best], np.array(BACKGROUNDS[names[best]], np.float32), 0.0
    return names[best], np.median(image[nearest == best], axis=0), float(shares[best])


def _read_patch(
    image: np.ndarray,
    distance: np.ndarray,
    mask: np.ndarray,
    window: tuple[slice, slice],
    background: np.ndarray,
    scale: float,
    explained: np.ndarray,
) -> Shape | str:
    """Read one patch as a shape and render it into `explained`, or return why it is not a shape."""
    inner = mask & (distance[window] >= 0.8 * np.percentile(distance[window][mask], 90))
    rgb = np.median(image[window][inner], axis=0)
    color = min(PALETTE, key=lambda name: float(np.linalg.norm(rgb - np.array(PALETTE[name], np.float32))))
    if np.linalg.norm(rgb - np.array(PALETTE[color], np.float32)) > COLOR_DISTANCE:
        return f"a patch of no known color {tuple(int(v) for v in rgb)}"
    axis = (rgb - background) / np.sum((rgb - background) ** 2)
    near = ndimage.binary_dilation(_on_canvas(mask, window, image), np.ones((3, 3)))
    alpha = np.clip((image - background) @ axis, 0, 1) * near
    fits = sorted((_fit(kind, alpha, scale) for kind in SHAPES + RESERVED_SHAPES), key=lambda fit: -fit.score)
    best, second = fits[:2]
    if best.score < MIN_FIT or best.score - second.score < MIN_LEAD:
        return f"a {color} patch of no clear shape ({best.kind} {best.score:.2f}, {second.kind} {second.score:.2f})"
    if not RADII[0] <= best.radius / scale <= RADII[1]:
        return f"a {color} {best.kind} of an unknown size ({best.radius / scale:.1f} units)"
    drawn = _drawn(best, image.shape[0])[..., None]
    explained += drawn * (rgb.astype(np.float32) - explained)
    x, y, radius = (round(value / scale) for value in (best.x, best.y, best.radius))
    red, green, blue = (int(value) for value in rgb)
    return Shape(best.kind, color, x, y, radius, (red, green, blue))


def _on_canvas(mask: np.ndarray, window: tuple[slice, slice], image: np.ndarray) -> np.ndarray:
    canvas = np.zeros(image.shape[:2], dtype=bool)
    canvas[window] = mask
    return canvas


@cache
def _unit(kind: str) -> tuple[float, float]:
    """Return the area of a shape of radius 1, and how far its center of mass is below its center."""
    mask = coverage(kind, 32.0)
    rows = np.arange(mask.shape[0]) + 0.5 - mask.shape[0] / 2
    return float(mask.sum()) / 32**2, float((mask.sum(axis=1) * rows).sum() / mask.sum()) / 32


def _fit(kind: str, alpha: np.ndarray, scale: float) -> _Fit:
    """Fit one kind of shape: radius from the area, center from the center of mass, score from the overlap."""
    area, drop = _unit(kind)
    total = float(alpha.sum())
    radius = max(round((total / area) ** 0.5 * QUANTUM) / QUANTUM, 1.0)
    rows, columns = (np.arange(side) + 0.5 for side in alpha.shape)
    y = float((alpha.sum(axis=1) * rows).sum()) / total - drop * radius
    x = float((alpha.sum(axis=0) * columns).sum()) / total
    x, y = round(x * QUANTUM) / QUANTUM, round(y * QUANTUM) / QUANTUM
    fit = _Fit(kind, 0.0, x, y, radius)
    drawn = _drawn(fit, alpha.shape[0])
    score = float(np.minimum(drawn, alpha).sum() / np.maximum(drawn, alpha).sum())
    return _Fit(kind, score, x, y, radius)


def _drawn(fit: _Fit, size: int) -> np.ndarray:
    """Return the (size, size) coverage of a fitted shape."""
    canvas = np.zeros((size, size), dtype=np.float32)
    rows, columns, alpha = covered(fit.kind, fit.x, fit.y, fit.radius, size)
    canvas[rows, columns] = alpha
    return canvas


def _unexplained(image: np.ndarray, explained: np.ndarray, scale: float) -> str:
    residual = np.abs(image - explained).mean(axis=-1)
    if residual.mean() > MEAN_RESIDUAL:
        return f"the picture is noisy or unsharp (mean residual {residual.mean():.1f})"
    worst = ndimage.uniform_filter(residual, max(round(PATCH * scale), 1)).max()
    return f"it shows something that is not a shape (residual {worst:.0f})" if worst > PATCH_RESIDUAL else ""
