"""Questions have exactly one right answer, and it is the one that the scene gives."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from janusflow.tinyworld.captions import KINDS, NUMBERS, describe, sample_pair
from janusflow.tinyworld.questions import MAKERS, sample_fact, sample_question, sample_talk
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, SHAPES, Scene, Shape


def shapes_named(text: str, scene: Scene) -> list[Shape]:
    """Shapes whose kind the text names."""
    return [shape for shape in scene.shapes if shape.kind in text]


def right(kind: str, text: str, answer: str, scene: Scene) -> bool:
    """An independent reading of question and scene."""
    words = text.rstrip("?.").split()
    if kind == "color":
        return [s.color for s in shapes_named(text, scene)] == [answer]
    if kind == "size":
        return [s.size for s in shapes_named(text, scene)] == [answer]
    if kind == "place":
        return [s.region for s in shapes_named(text, scene)] == [answer]
    if kind == "shape":
        (color,) = [word for word in words if word in COLORS]
        return [s.kind for s in scene.shapes if s.color == color] == [answer]
    if kind == "count":
        named = [shape for shape in SHAPES if shape in text]
        return answer == NUMBERS[len(shapes_named(text, scene)) if named else len(scene.shapes)]
    if kind == "exists":
        found = any(s.color in words and s.kind in words for s in scene.shapes)
        return answer == ("yes" if found else "no")
    if kind == "relation":
        first, second = sorted(shapes_named(text, scene), key=lambda s: text.index(s.kind))
        gap = {
            "left of": second.x - first.x,
            "right of": first.x - second.x,
            "above": second.y - first.y,
            "below": first.y - second.y,
        }
        (asked,) = [relation for relation in gap if relation in text]
        return answer == ("yes" if gap[asked] > 0 else "no")
    if kind == "background":
        named = [name for name in BACKGROUNDS if name in text]
        return answer == (scene.background if not named else "yes" if named == [scene.background] else "no")
    return kind == "describe" and answer == describe(scene)


@pytest.mark.parametrize("kind", MAKERS)
def test_answers_are_right(kind: str) -> None:
    rng, seen = Random(kind), 0
    while seen < 300:
        scene = sample_pair(rng, rng.choice(KINDS))[1]
        question = sample_question(rng, scene, kind)
        if question is not None:
            seen += 1
            assert question.kind == kind
            assert right(kind, question.text, question.answer, scene), (question, scene)


@pytest.mark.parametrize("kind", ["exists", "relation"])
def test_yes_and_no_are_balanced_and_some_noes_are_hard(kind: str) -> None:
    rng, answers, adversarial = Random(kind), Counter[str](), 0
    while answers.total() < 1500:
        scene = sample_pair(rng, "dense")[1]
        question = sample_question(rng, scene, kind)
        if question is None:
            continue
        answers[question.answer] += 1
        if kind == "exists" and question.answer == "no":
            words = question.text.rstrip("?").split()
            adversarial += any(s.color in words for s in scene.shapes) and any(s.kind in words for s in scene.shapes)
    assert 0.45 < answers["yes"] / answers.total() < 0.55
    if kind == "exists":
        assert adversarial > 0.3 * answers["no"]


def test_a_talk_asks_nothing_twice() -> None:
    rng = Random(0)
    for _ in range(100):
        talk = sample_talk(rng, sample_pair(rng, "dense")[1], 4)
        assert len({question.text for question in talk}) == 4


def test_facts_are_true() -> None:
    rng = Random(0)
    for _ in range(500):
        fact = sample_fact(rng)
        words = fact.text.rstrip("?").split()
        if "plus" in words:
            assert NUMBERS.index(words[2]) + NUMBERS.index(words[4]) == NUMBERS.index(fact.answer)
        elif words[0] == "is":
            assert fact.answer == ("yes" if (words[1] in COLORS) == (words[3] == "color") else "no")
        else:
            assert fact.answer in ("zero", "three", "four", "ten", "twelve", "left of", "right of", "above", "below")
