"""Bold scenes show their task, and what it leaves open stands out."""

from __future__ import annotations

from random import Random

import pytest

from janusflow.tinyworld.bold import CONTRAST, backgrounds, bold_pair, contrast
from janusflow.tinyworld.captions import KINDS, Clause
from janusflow.tinyworld.checker import matches
from janusflow.tinyworld.scenes import BACKGROUNDS, is_held_out, stand_apart


@pytest.mark.parametrize("kind", KINDS)
def test_a_bold_scene_shows_its_task_and_what_is_open_stands_out(kind: str) -> None:
    kinds, small = set(), 0
    for number in range(60):
        task, scene = bold_pair(Random(f"{kind}/{number}"), kind)
        assert task.kind == kind and matches(task, scene).passed
        assert stand_apart(scene.shapes) and not is_held_out(scene)
        clauses = [clause for clause in task.clauses for _ in range(clause.count)]
        for clause, shape in zip(clauses, scene.shapes, strict=True):
            assert clause.color or contrast(shape.color, scene.background) >= CONTRAST
            small += clause.size is None and len(clauses) <= 4 and shape.size == "small"
            kinds.add((shape.color, shape.size, scene.background))
        if task.background is None:
            assert scene.background in backgrounds(clauses)
    assert not small
    assert len(kinds) > 20


def test_a_named_colour_chooses_the_background() -> None:
    assert backgrounds([Clause("star")]) == list(BACKGROUNDS)
    assert backgrounds([Clause("star", color="pink")]) == ["gray", "mint", "slate"]
    assert backgrounds([Clause("star", color="pink"), Clause("cross", color="brown")]) == ["gray", "mint"]


def test_shapes_that_are_counted_are_mostly_alike() -> None:
    scenes = [bold_pair(Random(number), "counting")[1] for number in range(200)]
    alike = sum(len({shape.color for shape in scene.shapes}) == 1 for scene in scenes)
    assert 110 < alike < 190
