"""Composed scenes show their task, stand where they should, and are alike in what the prompt leaves open."""

from __future__ import annotations

from random import Random

import pytest

from janusflow.tinyworld.bold import OPEN_CONTRAST, contrast, first_stands
from janusflow.tinyworld.captions import GENEVAL_KINDS, Clause, Task
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.composed import JITTER, composed_pair, composed_scene
from janusflow.tinyworld.scenes import clearly, is_held_out, render, stand_apart


@pytest.mark.parametrize("kind", GENEVAL_KINDS)
def test_a_composed_scene_shows_its_task_in_one_layout(kind: str) -> None:
    layouts: dict[object, list[tuple[int, ...]]] = {}
    colors = set()
    for number in range(80):
        task, scene = composed_pair(Random(f"{kind}/{number}"), kind)
        assert task.kind == kind and check(task, render(scene)).passed
        assert stand_apart(scene.shapes) and not is_held_out(scene)
        clauses = [clause for clause in task.clauses for _ in range(clause.count)]
        sizes = {shape.size for shape in scene.shapes}
        assert sizes == {"large" if len(clauses) == 1 else "medium"}
        for clause, shape in zip(clauses, scene.shapes, strict=True):
            assert clause.color or contrast(shape.color, scene.background) >= OPEN_CONTRAST
        order = None
        if len(task.clauses) == 2:
            order = task.relation or first_stands(*(clause.kind for clause in task.clauses))
            assert clearly(order, *scene.shapes)
        else:
            assert len({shape.color for shape in scene.shapes}) == 1
        layouts.setdefault((len(clauses), order), []).append(tuple(p for s in scene.shapes for p in (s.x, s.y)))
        colors |= {(shape.color, scene.background) for shape in scene.shapes}
    assert len(colors) > 15
    for places in layouts.values():
        assert all(max(one) - min(one) <= 2 * JITTER for one in zip(*places, strict=True))
    assert max(len(set(places)) for places in layouts.values()) > 10


def test_dense_prompts_have_bold_scenes() -> None:
    scenes = [composed_pair(Random(number), "dense")[1] for number in range(60)]
    assert len({(shape.x, shape.y) for scene in scenes for shape in scene.shapes}) > 100


@pytest.mark.parametrize("clauses", [(Clause("star", 5),), (Clause("star", region="top"),)])
def test_only_tasks_that_leave_the_places_open_are_composed(clauses: tuple[Clause, ...]) -> None:
    with pytest.raises(ValueError, match="names places, or not 1 to 4 shapes"):
        composed_scene(Random(0), Task("dense", "stars", clauses))


def test_none_where_training_may_show_no_such_scene() -> None:
    kept = Task("two_object", "a triangle and a cross", (Clause("triangle"), Clause("cross")))
    assert composed_scene(Random(0), kept) is None
