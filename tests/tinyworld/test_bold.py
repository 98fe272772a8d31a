"""Bold scenes show their task, and what it leaves open stands out."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from janusflow.tinyworld.bold import (
    CONTRAST,
    backgrounds,
    bold_pair,
    contrast,
    first_stands,
    ordered_pair,
    unnamed_pair,
)
from janusflow.tinyworld.captions import KINDS, RELATION_WORDS, Clause
from janusflow.tinyworld.checker import matches
from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    SHAPES,
    clearly,
    held_out_pair,
    held_out_relation,
    is_held_out,
    stand_apart,
)


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


def test_where_a_prompt_leaves_it_open_who_stands_where_the_order_is_one_that_training_shows() -> None:
    orders = {pair: first_stands(*pair) for pair in permutations(SHAPES, 2)}
    assert not any(held_out_relation(first, order, second) for (first, second), order in orders.items())
    assert {first for (first, _), order in orders.items() if order == "left of"} == {"triangle", "star", "diamond"}
    assert {order for (first, _), order in orders.items() if first == "triangle"} == {"left of"}
    assert list(orders.values()).count("above") == 23


def test_an_ordered_pair_is_the_prompt_the_same_with_the_order_and_a_scene_of_both() -> None:
    colors, kinds = set(), set()
    for number in range(120):
        plain, clear, scene = ordered_pair(Random(number))
        first, second = scene.shapes
        assert clearly(first_stands(first.kind, second.kind), first, second)
        assert not is_held_out(scene) and not held_out_pair(first.kind, second.kind)
        words = RELATION_WORDS[first_stands(first.kind, second.kind)]
        assert any(word in clear for word in words) and not any(word in plain for word in words)
        assert [word for word in clear.split() if word in plain.split()][-1] == plain.split()[-1]
        named = [color in plain.replace(scene.background, "") for color in (first.color, second.color)]
        colors.add(tuple(named))
        kinds.add((first.kind, second.kind))
    assert len(colors) == 4 and len(kinds) > 20


def test_an_unnamed_pair_says_shape_for_one_kind_or_both_and_shows_nothing_kept_from_training() -> None:
    left_out, kinds = [], set()
    for number in range(200):
        plain, clear, scene = unnamed_pair(Random(number))
        assert not is_held_out(scene) and "shape" not in clear
        words = list(zip(plain.split(), clear.split(), strict=True))
        differing = [(a.strip("."), b.strip(".")) for a, b in words if a != b and a.lower() not in ("a", "an")]
        assert all(a == "shape" and b in SHAPES for a, b in differing)
        named = [word for word in (w.strip(".") for w in clear.split()) if word in SHAPES]
        assert named == [shape.kind for shape in scene.shapes]
        relations_said = [name for name, said in RELATION_WORDS.items() if any(f" {w} " in clear for w in said)]
        assert any(clearly(name, *scene.shapes) for name in relations_said)
        kept = [word for word in (w.strip(".") for w in plain.split()) if word in (*SHAPES, "shape")]
        left_out.append(tuple(word == "shape" for word in kept))
        kinds.add(tuple(named))
    assert set(left_out) == {(True, False), (False, True), (True, True)} and len(kinds) > 20
    assert 40 < left_out.count((True, True)) < 80
