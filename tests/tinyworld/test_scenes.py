"""Scenes: what they promise, what training never shows, and how they are rendered."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, combinations_with_replacement
from random import Random

import numpy as np
import pytest

from janusflow.evaluation.benchmarks import geneval
from janusflow.tinyworld.captions import HELD_OUT_KINDS, KINDS, sample_pair, sample_task
from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    COLORS,
    MAX_SHAPES,
    OPPOSITE,
    RELATIONS,
    RESERVED_SHAPES,
    SHAPES,
    SIZES,
    Scene,
    Shape,
    Wish,
    coverage,
    held_out,
    held_out_attribution,
    held_out_pair,
    held_out_relation,
    relations,
    render,
    sample_scene,
)


def shape(kind: str = "circle", x: int = 32, y: int = 32, radius: int = 9, color: str = "red") -> Shape:
    return Shape(kind, color, x, y, radius, COLORS[color])


HELD_OUT_PAIRS = [pair for pair in combinations_with_replacement(SHAPES, 2) if held_out_pair(*pair)]


def is_held_out(scene: Scene) -> bool:
    return any(held_out(a, b) for a, b in combinations(scene.shapes, 2))


def scenes(count: int, seed: str, shapes: tuple[str, ...] = SHAPES) -> list[Scene]:
    rng, found = Random(seed), []
    while len(found) < count:
        wishes = [Wish(kind=rng.choice(shapes)) for _ in range(rng.randint(1, MAX_SHAPES))]
        scene = sample_scene(rng, wishes, training=False)
        if scene is not None:
            found.append(scene)
    return found


def test_the_same_seed_gives_the_same_scene_and_pixels() -> None:
    first, again = scenes(5, "a"), scenes(5, "a")
    assert first == again
    assert all(np.array_equal(render(a), render(b)) for a, b in zip(first, again, strict=True))
    assert scenes(5, "b") != first


def test_shapes_stand_free_and_whole_inside_the_picture() -> None:
    for scene in scenes(300, "free", SHAPES + RESERVED_SHAPES):
        alone = [render(Scene((s,), scene.background, scene.background_rgb)) for s in scene.shapes]
        drawn = [np.abs(a.astype(int) - np.array(scene.background_rgb)).sum(-1) > 0 for a in alone]
        assert np.sum(drawn, axis=0).max() == 1
        for mask in drawn:
            assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_wishes_are_granted() -> None:
    rng = Random(0)
    wishes = [
        Wish("star", "red", "small", "top left"),
        Wish("cross", None, None, None, ("right of", 0)),
    ]
    found = [sample_scene(rng, wishes, background="mint", training=False) for _ in range(50)]
    granted = [scene for scene in found if scene is not None]
    assert len(granted) > 25
    for scene in granted:
        star, cross = scene.shapes
        assert (star.kind, star.color, star.size, star.region) == ("star", "red", "small", "top left")
        assert cross.kind == "cross"
        assert relations(cross, star) == {"right of"}
        assert scene.background == "mint"


def test_relations_follow_genevals_rule() -> None:
    center = shape()
    assert relations(shape(x=10), center) == {"left of"}
    assert relations(shape(x=54), center) == {"right of"}
    assert relations(shape(y=10), center) == {"above"}
    assert relations(shape(x=54, y=54), center) == {"right of", "below"}
    assert relations(shape(x=34, y=33), center) == set()
    assert relations(center, center) == set()


def test_relations_are_those_of_geneval_between_squares_around_the_shapes() -> None:
    sampled = [sample_scene(Random(number), [Wish(), Wish()]) for number in range(300)]
    assert sampled.count(None) < 100
    for scene in filter(None, sampled):
        a, b = ((s.x - s.radius, s.y - s.radius, s.x + s.radius, s.y + s.radius) for s in scene.shapes)
        assert relations(*scene.shapes) == geneval.relations(a, b)


def test_relations_are_mirrored() -> None:
    for scene in scenes(200, "mirror"):
        for a, b in combinations(scene.shapes, 2):
            assert {OPPOSITE[r] for r in relations(a, b)} == relations(b, a)


def test_a_fixed_share_of_combinations_is_held_out() -> None:
    assert len(HELD_OUT_PAIRS) == 2
    pairs = [(a, b) for a in SHAPES for b in SHAPES if a != b]
    related = [held_out_relation(a, r, b) for a, b in pairs for r in RELATIONS]
    assert 0.05 < np.mean(related) < 0.25
    colored = [((c, a), (d, b)) for a, b in pairs for c in COLORS for d in COLORS]
    assert 0.05 < np.mean([held_out_attribution(*pair) for pair in colored]) < 0.15
    for a, b in pairs:
        for r in RELATIONS:
            assert held_out_relation(a, r, b) == held_out_relation(b, OPPOSITE[r], a)
    for first, second in colored[::37]:
        assert held_out_attribution(first, second) == held_out_attribution(second, first)


def test_training_never_shows_what_is_held_out_nor_the_reserved_shapes() -> None:
    rng = Random(1)
    for kind in KINDS:
        for _ in range(150):
            _, scene = sample_pair(rng, kind)
            assert not is_held_out(scene)
            assert not {s.kind for s in scene.shapes} & set(RESERVED_SHAPES)
    rng = Random(2)
    free = [sample_scene(rng, [Wish(), Wish()], training=False) for _ in range(300)]
    assert any(is_held_out(scene) for scene in free if scene)  # the rule is not empty


def test_held_out_tasks_are_exactly_those_that_training_never_shows() -> None:
    rng = Random(3)
    for kind in HELD_OUT_KINDS:
        for wanted in (True, False):
            for _ in range(100):
                task = sample_task(rng, kind, held_out=wanted)
                first, second = task.clauses
                if kind == "two_object":
                    found = {first.kind, second.kind} in [set(pair) for pair in HELD_OUT_PAIRS]
                elif kind == "position":
                    assert task.relation is not None
                    found = held_out_relation(first.kind, task.relation, second.kind)
                else:
                    assert first.color is not None
                    assert second.color is not None
                    found = held_out_attribution((first.color, first.kind), (second.color, second.kind))
                assert found == wanted
    with pytest.raises(ValueError, match="'counting' has no held-out"):
        sample_task(rng, "counting", held_out=True)
    with pytest.raises(ValueError, match="'dancing'"):
        sample_task(rng, "dancing")


def test_held_out_is_what_any_of_the_three_rules_says() -> None:
    (a, b), *_ = HELD_OUT_PAIRS
    assert held_out(shape(a, 10, 10), shape(b, 50, 50))


@pytest.mark.parametrize("kind", SHAPES + RESERVED_SHAPES)
def test_coverage_is_a_share_and_scales_with_the_radius(kind: str) -> None:
    small, large = coverage(kind, 8.0), coverage(kind, 16.0)
    assert small.min() >= 0
    assert small.max() == 1
    assert large.sum() / small.sum() == pytest.approx(4, rel=0.02)


def test_rendering_at_another_size_shows_the_same_scene() -> None:
    for scene in scenes(20, "sizes"):
        large = render(scene, 128).astype(float)
        halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - render(scene)).mean() < 1.5


def test_sizes_and_regions_have_their_names() -> None:
    for name, radii in SIZES.items():
        assert {shape(radius=radius).size for radius in radii} == {name}
    assert shape(x=10, y=10).region == "top left"
    assert shape(x=32, y=32).region == "center"
    assert shape(x=55, y=32).region == "right"
    assert shape(x=32, y=55).region == "bottom"


def test_everything_occurs() -> None:
    found = scenes(400, "all")
    assert set(Counter(s.kind for scene in found for s in scene.shapes)) == set(SHAPES)
    assert set(Counter(s.color for scene in found for s in scene.shapes)) == set(COLORS)
    assert {scene.background for scene in found} == set(BACKGROUNDS)
    assert {len(scene.shapes) for scene in found} == {1, 2, 3, 4, 5}
