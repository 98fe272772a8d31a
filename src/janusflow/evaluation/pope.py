"""POPE (arXiv 2305.10355): is this object in the picture? The official rule for reading answers, and its scores.

Three sets of 3,000 questions (random, popular, adversarial) over COCO; others over A-OKVQA and GQA in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NO = ("No", "no", "not")


@dataclass(frozen=True)
class PopeQuestion:
    """One question.

    Attributes:
        number: `question_id` of the file.
        image: name of the picture's file.
        text: the question.
        label: whether the right answer is yes.
    """

    number: int
    image: str
    text: str
    label: bool


@dataclass(frozen=True)
class PopeScore:
    """Of one set; "yes" is the positive answer. Shares are 0 where nothing is to be divided by."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def read_questions(file: Path) -> list[PopeQuestion]:
    """A file of the official repository: JSON lines (COCO) or one JSON array (the SEEM sets).

    Raises:
        ValueError: naming the file, the record, and what it lacks.
    """
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}; expected POPE's JSON lines or a JSON array") from error
    questions = []
    for place, record in enumerate(found, start=1):
        try:
            label = {"yes": True, "no": False}[record["label"].strip().lower()]
            questions.append(PopeQuestion(int(record["question_id"]), record["image"], record["text"], label))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wanted = "question_id, image, text, and label yes or no"
            raise ValueError(f"{file}: record {place} is not POPE's; expected {wanted}") from error
    return questions


def says_yes(answer: str) -> bool:
    """The official reading: an answer is "yes" unless its first sentence has the word No, no or not.

    Commas are dropped and the sentence is split at spaces, so "nothing" and "NO" are no such words.
    """
    sentence = answer.split(".")[0].replace(",", "")
    return not any(word in NO for word in sentence.split(" "))


def score(labels: Sequence[bool], answers: Sequence[str]) -> PopeScore:
    """Scores answers as the official evaluation does.

    Args:
        labels: whether yes is right.
        answers: what the model said, in the same order.

    Raises:
        ValueError: if their numbers differ or there are none.
    """
    if not labels or len(labels) != len(answers):
        raise ValueError(f"{len(answers)} answers were given to {len(labels)} questions")
    said = [says_yes(answer) for answer in answers]
    pairs = list(zip(labels, said, strict=True))
    hits = sum(label and yes for label, yes in pairs)
    precision, recall = _share(hits, sum(said)), _share(hits, sum(labels))
    return PopeScore(
        accuracy=_share(sum(label == yes for label, yes in pairs), len(pairs)),
        precision=precision,
        recall=recall,
        f1=_share(2 * precision * recall, precision + recall),
        yes_ratio=_share(sum(said), len(said)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
