"""The benchmark gives a perfect painter and answerer everything, a careless one what is due, and asks nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.tinyworld import scores as tinyworld
from janusflow.tinyworld.captions import GENEVAL_KINDS, HELD_OUT_KINDS, sample_pair, scene_for
from janusflow.tinyworld.scenes import render
from janusflow.tinyworld.scores import Painted

PROMPTS, QUESTIONS = 6, 60


class Oracle:
    """Stands in for a model: it does what it is asked, but every `wrong`-th picture is empty."""

    def __init__(self, wrong: int = 0) -> None:
        every = [(kind, held) for kind in GENEVAL_KINDS for held in (False, True) if not held or kind in HELD_OUT_KINDS]
        todo = [task for kind, held in every for task in tinyworld.tasks(kind, PROMPTS, held_out=held)]
        self.tasks = {task.prompt: task for task in todo}
        self.answers = [question.answer for _, question in tinyworld.questions(QUESTIONS)]
        self.wrong, self.calls = wrong, 0

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
        pictures = []
        for prompt, seed in zip(prompts, options["seed"], strict=True):
            self.calls += 1
            tries = (scene_for(Random(f"{seed}-{n}"), self.tasks[prompt], training=False) for n in range(1000))
            scene = next(found for found in tries if found is not None)
            pictures.append(Image.fromarray(render(scene)))
            if self.wrong and self.calls % self.wrong == 0:
                pictures[-1] = Image.new("RGB", pictures[-1].size, "gray")
        return pictures

    def ask_batch(self, questions: Sequence[str], pictures: Sequence[Image.Image], **options: Any) -> list[str]:
        given, self.answers = self.answers[: len(questions)], self.answers[len(questions) :]
        return [f" {answer}\n" for answer in given]


def paint(model: Oracle) -> list[Painted]:
    return list(tinyworld.paint(cast(JanusFlow, model), prompts=PROMPTS, images=2))


def test_a_perfect_model_scores_everything() -> None:
    scores = tinyworld.painting_scores(paint(Oracle()))
    assert {score.kind for score in scores} >= {*GENEVAL_KINDS, *(f"{kind}, never seen" for kind in HELD_OUT_KINDS)}
    assert all(score.share == 1 for score in scores)
    answered = list(tinyworld.answer(cast(JanusFlow, Oracle()), count=QUESTIONS))
    assert all(score.share == 1 for score in tinyworld.answer_scores(answered))


def test_wrong_pictures_and_answers_are_counted() -> None:
    painted = paint(Oracle(wrong=3))
    assert sum(bool(one.problem) for one in painted) == len(painted) // 3
    overall = tinyworld.painting_scores(painted)[-1]
    assert overall.share == pytest.approx(2 / 3, abs=0.1)
    answered = [(question, "perhaps") for _, question in tinyworld.questions(QUESTIONS)]
    assert all(score.share == 0 for score in tinyworld.answer_scores(answered))


def test_prompts_are_distinct_and_those_never_seen_are_in_no_training_pair() -> None:
    for kind in HELD_OUT_KINDS:
        seen, held = (tinyworld.tasks(kind, 40, held_out=flag) for flag in (False, True))
        prompts = [task.prompt for task in (*seen, *held)]
        assert len(set(prompts)) == len(prompts)
        trained = {sample_pair(Random(f"training-{n}"), kind)[0].prompt for n in range(2000)}
        assert not trained & {task.prompt for task in held}


def test_a_score_has_its_standard_error() -> None:
    assert tinyworld.Score("one", 50, 100).deviation == pytest.approx(0.05)
    assert tinyworld.Score("none", 0, 0).share == 0
