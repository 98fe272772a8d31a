"""Composed scenes show their task, stand where they should, and are alike in what the prompt leaves open."""

from __future__ import annotations

from random import Random

import pytest

from janusflow.tinyworld.bold import contrast, first_stands
from janusflow.tinyworld.captions import GENEVAL_KINDS, Clause, Task
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.composed import JITTER, SAYS_WHERE, STANDS_OUT, composed_pair, composed_scene
from janusflow.tinyworld.scenes import clearly, is_held_out, render, stand_apart


@pytest.mark.parametrize("kind", [kind for kind in GENEVAL_KINDS if kind not in SAYS_WHERE])
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
            assert clause.color or contrast(shape.color, scene.background) >= STANDS_OUT
        order = None
        if len(task.clauses) == 2:
            order = first_stands(*(clause.kind for clause in task.clauses))
            assert clearly(order, *scene.shapes)
        else:
            assert len({shape.color for shape in scene.shapes}) == 1
        layouts.setdefault((len(clauses), order), []).append(tuple(p for s in scene.shapes for p in (s.x, s.y)))
        colors |= {(shape.color, scene.background) for shape in scene.shapes}
    assert len(colors) > 15
    for places in layouts.values():
        assert all(max(one) - min(one) <= 2 * JITTER for one in zip(*places, strict=True))
    assert max(len(set(places)) for places in layouts.values()) > 10


@pytest.mark.parametrize("kind", SAYS_WHERE)
def test_prompts_that_say_where_have_scenes_of_all_such_places(kind: str) -> None:
    scenes = [composed_pair(Random(number), kind)[1] for number in range(80)]
    assert len({(shape.x, shape.y) for scene in scenes for shape in scene.shapes}) > 100


CROSS = Clause("cross")


@pytest.mark.parametrize(
    "task",
    [
        Task("dense", "five stars", (Clause("star", 5),)),
        Task("dense", "a star at the top", (Clause("star", region="top"),)),
        Task("position", "a star above a cross", (Clause("star"), CROSS), relation="above"),
    ],
)
def test_only_tasks_that_leave_the_places_open_are_composed(task: Task) -> None:
    with pytest.raises(ValueError, match="says where, or has not 1 to 4 shapes"):
        composed_scene(Random(0), task)


def test_none_where_training_may_show_no_such_scene() -> None:
    kept = Task("two_object", "a triangle and a cross", (Clause("triangle"), CROSS))
    assert composed_scene(Random(0), kept) is None
