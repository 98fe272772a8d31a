"""The checker proves itself before it judges: on rendered truths, on near misses, and on damaged pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy import ndimage

from janusflow.tinyworld.captions import KINDS, Clause, Task, sample_pair, scene_for
from janusflow.tinyworld.checker import check, matches, read
from janusflow.tinyworld.scenes import (
    COLORS,
    MAX_SHAPES,
    OPPOSITE,
    RESERVED_SHAPES,
    SHAPES,
    Scene,
    Shape,
    Wish,
    render,
    sample_scene,
)

TRUTHS = 5000
RIGHT = 5  # one right scene of a task for so many wrong ones
PARTS = 5  # each test of all truths is split, so that the tests run side by side


def truth(rng: Random) -> Scene:
    """Any scene: every shape that exists, held-out combinations too."""
    while True:
        kinds = [rng.choice(SHAPES + RESERVED_SHAPES) for _ in range(rng.randint(1, MAX_SHAPES))]
        scene = sample_scene(rng, [Wish(kind=kind) for kind in kinds], training=False)
        if scene is not None:
            return scene


def content(scene: Scene) -> Counter[tuple]:
    return Counter((s.kind, s.color, s.size, s.x, s.y) for s in scene.shapes)


@pytest.mark.parametrize("part", range(PARTS))
def test_rendered_scenes_are_read_exactly(part: int) -> None:
    rng, count = Random(f"truth-{part}"), TRUTHS // PARTS
    right = 0
    for _ in range(count):
        scene = truth(rng)
        found = read(render(scene)).scene
        right += found is not None and content(found) == content(scene) and found.background == scene.background
    assert right / count >= 0.995


@pytest.mark.parametrize("part", range(PARTS))
def test_near_misses_do_not_pass_and_the_right_scene_does(part: int) -> None:
    rng, count = Random(f"miss-{part}"), TRUTHS // PARTS
    passed = accepted = done = 0
    while done < count:
        task, scene = sample_pair(rng, rng.choice(KINDS))
        wrong = near_miss(rng, task)
        other = scene_for(rng, wrong, training=False) if wrong else None
        if other is None:
            continue
        done += 1
        passed += check(task, render(other)).passed
        accepted += done % RIGHT == 0 and check(task, render(scene)).passed
    assert passed / count <= 0.005
    assert accepted / (count // RIGHT) >= 0.995


def near_miss(rng: Random, task: Task) -> Task | None:
    """A task that differs in one respect: a count one off, colors swapped, relation reversed, another shape."""
    first, *others = task.clauses
    choice = rng.randrange(5)
    if choice == 0:
        total = sum(clause.count for clause in task.clauses)
        step = rng.choice((-1, 1)) if total < MAX_SHAPES else -1
        if first.count + step < 1:
            step = 1
        return replace(task, clauses=(replace(first, count=first.count + step, region=None), *others))
    if choice == 1 and others and first.color and others[0].color and first.color != others[0].color:
        if (first.kind, first.count) == (others[0].kind, others[0].count):
            return None
        swapped = replace(first, color=others[0].color), replace(others[0], color=first.color)
        return replace(task, clauses=(*swapped, *others[1:]))
    if choice == 2 and task.relation:
        return replace(task, relation=OPPOSITE[task.relation])
    if choice == 3:
        kinds = [kind for kind in SHAPES + RESERVED_SHAPES if kind not in {c.kind for c in task.clauses}]
        return replace(task, clauses=(replace(first, kind=rng.choice(kinds)), *others))
    if choice == 4 and first.color:
        colors = [color for color in COLORS if color not in {c.color for c in task.clauses}]
        return replace(task, clauses=(replace(first, color=rng.choice(colors)), *others))
    return None


# --- damage ---------------------------------------------------------------------------------------------------------


def noisy(rng: Random, scene: Scene) -> np.ndarray:
    noise = np.random.default_rng(rng.randrange(10**6)).normal(0, rng.choice((15, 25, 50)), (64, 64, 3))
    return np.clip(render(scene) + noise, 0, 255).astype(np.uint8)


def blurred(rng: Random, scene: Scene) -> np.ndarray:
    sigma = rng.choice((2.5, 3, 4))
    return ndimage.gaussian_filter(render(scene).astype(float), (sigma, sigma, 0)).astype(np.uint8)


def half_drawn(rng: Random, scene: Scene) -> np.ndarray:
    """The right half of one shape is missing."""
    pixels, shape = render(scene), rng.choice(scene.shapes)
    reach = 16
    pixels[max(0, shape.y - reach) : shape.y + reach, shape.x : shape.x + reach] = scene.background_rgb
    return pixels


def with_another_shape(rng: Random, scene: Scene) -> np.ndarray | None:
    """One shape more, somewhere free."""
    for _ in range(100):
        extra = Shape(
            rng.choice(SHAPES), rng.choice(tuple(COLORS)), rng.randint(10, 54), rng.randint(10, 54), 6, (0,) * 3
        )
        extra = replace(extra, rgb=COLORS[extra.color])
        if all(np.hypot(extra.x - s.x, extra.y - s.y) > 1.2 * (extra.radius + s.radius) + 3 for s in scene.shapes):
            return render(replace(scene, shapes=(*scene.shapes, extra)))
    return None


def with_a_blob(rng: Random, scene: Scene) -> np.ndarray | None:
    """Something that is no shape, somewhere free."""
    pixels = render(scene)
    for _ in range(100):
        x, y = rng.randint(2, 48), rng.randint(2, 48)
        part = pixels[y : y + 12, x : x + 6]
        if (np.abs(part.astype(int) - np.array(scene.background_rgb)).sum(-1) == 0).all():
            part[:] = COLORS[rng.choice(tuple(COLORS))]
            return pixels
    return None


@pytest.mark.parametrize("damage", [noisy, blurred, half_drawn, with_another_shape, with_a_blob])
def test_damaged_pictures_are_refused(damage: object) -> None:
    assert callable(damage)
    rng = Random(damage.__name__)
    passed = done = 0
    while done < 200:
        task, scene = sample_pair(rng, rng.choice(KINDS))
        pixels = damage(rng, scene)
        if pixels is not None:
            done += 1
            passed += check(task, pixels).passed
    assert passed / done <= 0.01


def test_a_blank_picture_and_no_picture_at_all() -> None:
    task = Task("single_object", "a star", (Clause("star"),))
    assert check(task, np.full((64, 64, 3), 150, np.uint8)).problem == "0 shapes, not 1"
    for wrong in (np.zeros((64, 60, 3), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3))):
        with pytest.raises(ValueError, match="expected a square"):
            read(wrong)
    assert read(np.zeros((64, 64, 3), np.uint8)).scene is None


def test_what_is_wrong_is_said() -> None:
    scene = Scene((Shape("star", "red", 20, 20, 9, COLORS["red"]),), "gray", (150, 152, 156))
    for task, problem in (
        (Task("colors", "", (Clause("star", color="blue"),)), "shows medium red star (top left)"),
        (Task("counting", "", (Clause("star", 2),)), "1 shapes, not 2"),
        (Task("single_object", "", (Clause("star"),), None, "mint"), "the background is gray, not mint"),
        (Task("single_object", "", (Clause("star", region="bottom"),)), "shows medium red star (top left)"),
        (Task("single_object", "", (Clause("star", size="large"),)), "shows medium red star (top left)"),
    ):
        assert matches(task, scene).problem == problem
    assert matches(Task("dense", "", (Clause("star", 1, "red", "medium", "top left"),)), scene).passed


def test_pictures_of_other_sizes_are_read_too() -> None:
    rng = Random("large")
    for _ in range(40):
        task, scene = sample_pair(rng, rng.choice(KINDS))
        assert check(task, render(scene, 128)).passed
