"""The nearest scene of a task: always one of the task, and as near to the picture as the task allows."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from janusflow.tinyworld.captions import KINDS, Clause, Task, sample_pair
from janusflow.tinyworld.checker import matches
from janusflow.tinyworld.nearest import nearest_scene
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, PALETTE, Scene, Shape, is_held_out, render, stand_apart


def shape(kind: str, color: str, x: int, y: int, radius: int = 9) -> Shape:
    return Shape(kind, color, x, y, radius, COLORS[color])


def scene_of(*shapes: Shape, background: str = "mint") -> Scene:
    return Scene(shapes, background, BACKGROUNDS[background])


@pytest.mark.parametrize("kind", KINDS)
def test_it_shows_the_task_whatever_the_picture_shows(kind: str) -> None:
    for number in range(12):
        rng = Random(f"{kind}/{number}")
        task, _ = sample_pair(rng, kind)
        other = render(sample_pair(rng, rng.choice(KINDS))[1])
        found = nearest_scene(task, other, rng)
        assert found is not None
        verdict = matches(task, found)
        assert verdict.passed, verdict.problem
        assert stand_apart(found.shapes) and not is_held_out(found)


def test_a_colour_that_tasks_do_not_know_becomes_the_nearest_that_they_do() -> None:
    cyan = scene_of(Shape("circle", "cyan", 30, 30, 9, PALETTE["cyan"]), background="beige")
    found = nearest_scene(Task("single_object", "a circle", (Clause("circle"),)), render(cyan), Random(0))
    assert found is not None and found.shapes[0].color in COLORS


def test_a_bold_picture_that_is_right_stays() -> None:
    for number in range(40):
        rng = Random(number)
        task, scene = sample_pair(rng, rng.choice(KINDS))
        bold = nearest_scene(task, render(scene), rng)
        assert bold is not None
        found = nearest_scene(task, render(bold), rng)
        assert found is not None
        assert difference(found, bold) < 8, (task.prompt, bold, found)


def test_what_the_task_leaves_open_is_bold() -> None:
    pale = render(
        scene_of(shape("circle", "pink", 20, 20, 6), shape("square", "yellow", 40, 44, 6), background="beige")
    )
    for task, sizes in (
        (Task("single_object", "", (Clause("circle"),)), {"medium", "large"}),
        (Task("two_object", "", (Clause("circle"), Clause("square"))), {"medium", "large"}),
        (Task("counting", "", (Clause("circle", count=4),)), {"medium"}),
    ):
        found = nearest_scene(task, pale, Random(0))
        assert found is not None
        assert {one.size for one in found.shapes} <= sizes
        assert all(math.dist(one.rgb, found.background_rgb) >= 150 for one in found.shapes)
    asked = Task("dense", "", (Clause("circle", color="pink", size="small"),), background="beige")
    found = nearest_scene(asked, pale, Random(0))
    assert found is not None and found.background == "beige"
    assert (found.shapes[0].color, found.shapes[0].size) == ("pink", "small")
    named = nearest_scene(replace(asked, background=None), pale, Random(0))
    assert named is not None and named.background != "beige", "pink does not stand out there"


def test_what_is_right_stays_and_what_is_wrong_is_changed() -> None:
    circle, diamond = shape("circle", "red", 18, 20), shape("diamond", "blue", 44, 42)
    alone = Task("single_object", "a circle", (Clause("circle"),))
    both = Task("color_attr", "", (Clause("circle", color="pink"), Clause("diamond", color="blue")))
    right = Task("position", "", (Clause("diamond"), Clause("circle")), relation="left of")
    drawn = render(scene_of(circle, diamond))
    left_out = nearest_scene(alone, drawn, Random(0))
    assert left_out is not None and near(left_out.shapes[0], circle) and left_out.shapes[0].color == "red"
    recolored = nearest_scene(both, drawn, Random(0))
    assert recolored is not None and near(recolored.shapes[0], circle) and near(recolored.shapes[1], diamond)
    assert [one.color for one in recolored.shapes] == ["pink", "blue"]
    turned = nearest_scene(right, drawn, Random(0))
    assert turned is not None and turned.shapes[0].x < turned.shapes[1].x
    assert all(found.background == "mint" for found in (left_out, recolored, turned))
    slate = nearest_scene(replace(alone, background="slate"), drawn, Random(0))
    assert slate is not None and slate.background == "slate"


def test_of_two_equal_shapes_the_later_becomes_what_is_named_later() -> None:
    for upper, lower in (((20, 20), (44, 40)), ((20, 40), (44, 30)), ((40, 18), (20, 46))):
        stars = render(scene_of(shape("star", "blue", *upper), shape("star", "blue", *lower)))
        for kinds in (("star", "square"), ("square", "star")):
            for colors in ((None, None), ("blue", "purple"), ("purple", "blue")):
                clauses = tuple(Clause(kind, color=color) for kind, color in zip(kinds, colors, strict=True))
                found = nearest_scene(Task("two_object", "", clauses), stars, Random(0))
                assert found is not None
                places = [(one.x, one.y) for one in found.shapes]
                assert math.dist(places[0], upper) < math.dist(places[0], lower), (kinds, colors, found)
        pair = render(scene_of(shape("star", "blue", *upper), shape("square", "blue", *lower)))
        right = nearest_scene(Task("two_object", "", (Clause("square"), Clause("star"))), pair, Random(0))
        assert right is not None and math.dist((right.shapes[1].x, right.shapes[1].y), upper) < 4


def test_of_two_shapes_what_is_named_first_stands_above_where_nothing_says_otherwise() -> None:
    lone = render(scene_of(shape("star", "blue", 44, 44)))
    task = Task("two_object", "", (Clause("star"), Clause("square")))
    for seed in range(4):
        found = nearest_scene(task, lone, Random(seed))
        assert found is not None
        star, square = found.shapes
        assert square.y - star.y >= abs(square.x - star.x), (seed, found)


def near(found: Shape, wanted: Shape) -> bool:
    return max(abs(found.x - wanted.x), abs(found.y - wanted.y), abs(found.radius - wanted.radius)) <= 3


def difference(a: Scene, b: Scene) -> float:
    """Mean absolute difference of the renderings, of 255."""
    return float(np.abs(render(a).astype(int) - render(b).astype(int)).mean())


def test_nothing_where_the_task_has_no_scene() -> None:
    crowded = Task("dense", "", tuple(Clause("circle", size="large", region="center", color=c) for c in COLORS)[:4])
    assert nearest_scene(crowded, np.zeros((64, 64, 3), np.uint8), Random(0)) is None
