"""Sentences say what their task says."""

from __future__ import annotations

import re
from random import Random

from janusflow.tinyworld.captions import KINDS, RELATION_WORDS, Clause, describe, noun_phrase, sample_pair
from janusflow.tinyworld.checker import matches
from janusflow.tinyworld.scenes import COLORS, SHAPES, Scene, Shape


def test_every_word_of_the_task_stands_in_its_prompt_and_no_other() -> None:
    rng = Random(0)
    for kind in KINDS:
        for _ in range(200):
            task, scene = sample_pair(rng, kind)
            prompt = task.prompt.lower()
            if task.background:
                prompt = prompt.replace(task.background, "")
            shown = list(task.clauses)
            for shape in SHAPES:
                assert (shape in re.sub(r"(crosse|\w+)s\b", r"\g<0>", prompt)) == any(c.kind == shape for c in shown)
            assert {c for c in COLORS if re.search(rf"\b{c}\b", prompt)} == {c.color for c in shown if c.color}
            assert (task.relation is not None) == (kind == "position")
            if task.relation:
                assert any(words in prompt for words in RELATION_WORDS[task.relation])
            assert matches(task, scene).passed


def test_there_are_many_wordings() -> None:
    rng = Random(1)
    prompts = {re.sub("|".join((*SHAPES, *COLORS)), "X", sample_pair(rng, "position")[0].prompt) for _ in range(500)}
    assert len(prompts) > 100


def test_phrases() -> None:
    assert noun_phrase(Clause("circle", color="orange")) == "an orange circle"
    assert noun_phrase(Clause("cross", 3, "red", "small")) == "three small red crosses"
    assert noun_phrase(Clause("star", 2)) == "two stars"


def test_a_description_names_everything_in_reading_order() -> None:
    low = Shape("cross", "green", 54, 54, 6, COLORS["green"])
    high = Shape("circle", "red", 10, 10, 12, COLORS["red"])
    scene = Scene((low, high), "mint", (0, 0, 0))
    assert describe(scene) == (
        "a large red circle at the top left and a small green cross at the bottom right on a mint background"
    )
