"""Diversity of the tiny world: bins, the world's own distribution, and a sampler that always gives the same picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from janusflow.evaluation.protocol import Row
from janusflow.evaluation.spread import OTHER, total_variation
from janusflow.tinyworld.benchmark import SPREAD, TinyWorld, WorldSettings
from janusflow.tinyworld.captions import Clause, Task, scene_for
from janusflow.tinyworld.checker import read
from janusflow.tinyworld.scenes import SHAPES, Scene, render
from janusflow.tinyworld.spread import FACTORS, bins, open_tasks, sampled

COUNT = 4000


def scenes(count: int, *, same: bool = False) -> list[Scene]:
    rng, found = Random(0), []
    for task in open_tasks(count):
        scene = scene_for(Random(1) if same else rng, task)
        assert scene is not None
        found.append(scene)
    return found


def test_scenes_as_they_are_sampled_have_no_distance_but_chance() -> None:
    values = [bins(scene) for scene in scenes(COUNT)]
    for factor, wanted in sampled().items():
        assert sum(wanted.values()) == pytest.approx(1)
        assert total_variation((one[factor] for one in values), wanted) < 0.03
    assert sampled()["place"]["center"] > 2 * sampled()["place"]["top left"]


def test_one_picture_for_every_seed_is_far_off() -> None:
    values = [bins(scene) for scene in scenes(60, same=True)]
    for factor in FACTORS:
        assert total_variation((one[factor] for one in values), sampled()[factor]) > 0.6


def test_what_cannot_be_read_or_shows_more_is_a_bin_of_its_own() -> None:
    task = Task("counting", "two stars", (Clause("star", 2),))
    assert set(bins(None).values()) == {OTHER} == set(bins(scene_for(Random(0), task)).values())
    assert set(bins(read(render(scenes(1)[0])).scene).values()) & {OTHER} == set()


def test_prompts_name_each_shape_equally_often_and_nothing_else() -> None:
    assert set(Counter(task.clauses[0].kind for task in open_tasks(60)).values()) == {60 // len(SHAPES)}
    assert {task.prompt for task in open_tasks(6)} == {f"a {shape}" for shape in SHAPES}


def test_the_benchmark_scores_each_factor(tmp_path: Path) -> None:
    settings = WorldSettings(prompts=0, questions=0, features=False, spread=300)
    benchmark = TinyWorld(None, settings)
    items = benchmark.items()
    assert len(items) == 300 == len({item.seed for item in items}) and {item.data["kind"] for item in items} == {SPREAD}
    pictures = [Image.fromarray(render(scene)) for scene in scenes(300)]
    rows = [Row(item, "", benchmark.judge(item, one)) for item, one in zip(items, pictures, strict=True)]
    scores, samples = benchmark.scores(rows), benchmark.samples(rows)
    assert scores[SPREAD] > 0.98
    for factor in FACTORS:
        assert scores[f"spread, {factor}"] < 0.12 and samples[f"spread, {factor}"].n == 300
    assert not any(name.startswith("spread") for name in TinyWorld(None, WorldSettings(prompts=1)).scores([]))
