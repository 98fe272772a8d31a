"""Score a model in the tiny world without writing a run: the checker judges pictures, and the scene judges answers.

The scenes of prompts and questions were never trained on, because their random generators have their own names.
`benchmark.py` is `janusflow eval tinyworld`, which also resumes runs and writes reports.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from janusflow.arguments import whole_number
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.progress import progress_bar
from janusflow.tinyworld.captions import GENEVAL_KINDS, HELD_OUT_KINDS, KINDS, Task, sample_task, scene_for
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.questions import YES_NO_KINDS, Question, sample_question
from janusflow.tinyworld.scenes import Scene, render

BATCH = 64


@dataclass(frozen=True)
class Score:
    """Number of right pictures or answers of a kind.

    Attributes:
        kind: kind of the task or question; ", never seen" marks combinations that training never shows.
        right, total: number of right ones, and of all.
    """

    kind: str
    right: int
    total: int

    @property
    def share(self) -> float:
        """right / total, or 0 for a total of 0."""
        return self.right / self.total if self.total else 0.0

    @property
    def deviation(self) -> float:
        """Standard error of the share."""
        return math.sqrt(self.share * (1 - self.share) / self.total) if self.total else 0.0


@dataclass(frozen=True)
class Painted:
    """One picture generated for a task, and the problem that the checker found."""

    kind: str
    task: Task
    seed: int
    picture: Image.Image
    problem: str


def tasks(kind: str, count: int, *, held_out: bool, seed: int = 0) -> list[Task]:
    """Return up to `count` tasks with distinct prompts."""
    rng = Random(f"evaluation-{seed}-{kind}-{held_out}")
    found: dict[str, Task] = {}
    for _ in range(50 * count):
        task = sample_task(rng, kind, held_out=held_out)
        found.setdefault(task.prompt, task)
        if len(found) == count:
            break
    return list(found.values())


def paint(
    model: JanusFlow,
    *,
    prompts: int = 100,
    images: int = 4,
    guidance_scale: float = 2.0,
    steps: int = 30,
    seed: int = 0,
) -> Iterator[Painted]:
    """Generate pictures of the six kinds, with seen and unseen combinations, and check each one.

    Args:
        model: a pipeline.
        prompts: maximum number of prompts per kind.
        images: pictures per prompt.
        guidance_scale, steps: guidance scale and number of steps of Euler's method.
        seed: seed of prompts and noise; every picture of a kind has different noise.

    Raises:
        ValueError: if `prompts` is negative or `images` is less than 1.
    """
    prompts, images = whole_number("prompts", prompts, least=0), whole_number("images", images)
    asked = [(kind, held) for kind in GENEVAL_KINDS for held in (False, True) if not held or kind in HELD_OUT_KINDS]
    todo = [
        (f"{kind}, never seen" if held else kind, task, seed + number * images + image)
        for kind, held in asked
        for number, task in enumerate(tasks(kind, prompts, held_out=held, seed=seed))
        for image in range(images)
    ]
    with progress_bar("generating", len(todo)) as advance:
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            pictures = model.generate(
                [task.prompt for _, task, _ in part],
                seed=[noise for _, _, noise in part],
                guidance_scale=guidance_scale,
                num_inference_steps=steps,
                batch_size=BATCH,
                progress=False,
            )
            for (kind, task, noise), picture in zip(part, pictures, strict=True):
                advance()
                yield Painted(kind, task, noise, picture, check(task, np.asarray(picture)).problem)


def questions(count: int, *, seed: int = 0) -> list[tuple[Scene, Question]]:
    """Return questions about scenes of all kinds, including held-out combinations."""
    found: list[tuple[Scene, Question]] = []
    for index in range(count):
        rng, scene = Random(f"questions-{seed}-{index}"), None
        while scene is None:
            scene = scene_for(rng, sample_task(rng, rng.choice(KINDS)), training=False)
        question = sample_question(rng, scene)
        assert question is not None
        found.append((scene, question))
    return found


def answer(model: JanusFlow, *, count: int = 1000, seed: int = 0) -> Iterator[tuple[Question, str]]:
    """Ask held-out questions, and yield each with the model's answer."""
    todo = questions(whole_number("count", count, least=0), seed=seed)
    with progress_bar("answering", len(todo)) as advance:
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            pictures = [Image.fromarray(render(scene)) for scene, _ in part]
            answers = model.ask_batch([question.text for _, question in part], pictures, max_new_tokens=80)
            for (_, question), said in zip(part, answers, strict=True):
                advance()
                yield question, said.strip()


def painting_scores(painted: list[Painted]) -> list[Score]:
    """Return scores by kind, then the mean over the six kinds with combinations seen in training ("overall")."""
    scores = _scores([(one.kind, not one.problem) for one in painted])
    six = [score.share for score in scores if score.kind in GENEVAL_KINDS]
    total = sum(score.total for score in scores if score.kind in GENEVAL_KINDS)
    return [*scores, Score("overall (mean of the six)", round(total * sum(six) / max(len(six), 1)), total)]


def answer_scores(answered: list[tuple[Question, str]]) -> list[Score]:
    """Return scores (exact match) for each kind of question, for all yes/no questions, and for all questions."""
    rows = [(question.kind, said == question.answer) for question, said in answered]
    both = [("yes/no", right) for kind, right in rows if kind in YES_NO_KINDS]
    return _scores([*rows, *both, *(("all", right) for _, right in rows)])


def _scores(rows: list[tuple[str, bool]]) -> list[Score]:
    counts: dict[str, list[bool]] = defaultdict(list)
    for kind, right in rows:
        counts[kind].append(right)
    return [Score(kind, sum(right), len(right)) for kind, right in counts.items()]
