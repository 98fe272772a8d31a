"""MME (arXiv 2306.13394): yes/no questions in pairs over fourteen tasks. The official reading of answers, and scores.

Each picture has two questions, one with each answer. A task's score is 100 (acc + acc+), acc+ the share of pictures
with both answers right; perception sums ten tasks (at most 2,000), cognition four (at most 800).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
READ = 4  # characters of an answer that are searched for yes or no
COLUMNS = "picture, question, Yes or No"


@dataclass(frozen=True)
class MmeQuestion:
    """One line of a task's file: the picture's name, the question, whether yes is right, and an answer if it has it."""

    image: str
    text: str
    label: bool
    answer: str | None = None


@dataclass(frozen=True)
class MmeScore:
    """Of one task: shares of right answers and of pictures with both right, and the official score."""

    accuracy: float
    accuracy_plus: float

    @property
    def score(self) -> float:
        """100 (acc + acc+), at most 200."""
        return 100 * (self.accuracy + self.accuracy_plus)


def read_task(file: Path) -> list[MmeQuestion]:
    """A task's file, lines of three or, with answers, four columns between tabs.

    Raises:
        ValueError: naming the line and what is expected.
    """
    questions = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) not in (3, 4) or columns[2].strip().lower() not in ("yes", "no"):
            raise ValueError(f"{file}: line {number} is not MME's; expected tabs between {COLUMNS}, and an answer")
        label = columns[2].strip().lower() == "yes"
        questions.append(MmeQuestion(columns[0], columns[1], label, columns[3] if len(columns) == 4 else None))
    return questions


def reads(answer: str) -> bool | None:
    """The official reading: True for yes, False for no, None for neither (which is wrong whatever is right).

    Lower-cased and stripped; the whole answer, or the first four characters, are searched for "yes" and then "no".
    """
    said = answer.strip().lower()
    if said in ("yes", "no"):
        return said == "yes"
    start = said[:READ]
    return True if "yes" in start else False if "no" in start else None


def score_task(questions: Sequence[MmeQuestion], answers: Sequence[str]) -> MmeScore:
    """Scores one task.

    Args:
        questions: of the task.
        answers: in the same order.

    Raises:
        ValueError: if their numbers differ, there are none, or a picture has not exactly two questions.
    """
    if not questions or len(questions) != len(answers):
        raise ValueError(f"{len(answers)} answers were given to {len(questions)} questions")
    pictures: dict[str, list[bool]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        pictures[question.image].append(reads(answer) is question.label)
    odd = next((name for name, right in pictures.items() if len(right) != 2), None)
    if odd is not None:
        raise ValueError(f"picture {odd} has {len(pictures[odd])} questions; in MME each has two")
    right = sum(sum(both) for both in pictures.values())
    return MmeScore(right / len(questions), sum(all(both) for both in pictures.values()) / len(pictures))


def totals(scores: Mapping[str, MmeScore]) -> dict[str, float]:
    """Perception and cognition from the scores of tasks by name; a part is left out if one of its tasks is missing."""
    parts = {"perception": PERCEPTION, "cognition": COGNITION}
    return {
        part: sum(scores[task].score for task in tasks)
        for part, tasks in parts.items()
        if all(task in scores for task in tasks)
    }
