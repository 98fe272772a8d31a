"""MME (arXiv 2306.13394): pairs of yes/no questions over fourteen tasks, read and scored by the official rules.

Each picture has two questions, one with each answer. A task's score is 100 (acc + acc+), where acc+ is the share of
pictures with both answers right. Perception sums ten tasks (at most 2,000), cognition four (at most 800).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from janusflow.evaluation.data import Questions, mean
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.question_forms import BriefSettings, brief_question
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.files import write_text

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
READ = 4  # first characters of an answer, which are searched for yes or no
COLUMNS = "picture, question, Yes or No"


@dataclass(frozen=True)
class MmeQuestion:
    """One line of a task's file: the picture's name, the question, whether yes is right, and the answer, if any."""

    image: str
    text: str
    label: bool
    answer: str | None = None


@dataclass(frozen=True)
class MmeScore:
    """Scores of one task: shares of right answers and of pictures with both right, and the official score."""

    accuracy: float
    accuracy_plus: float

    @property
    def score(self) -> float:
        """100 (acc + acc+), at most 200."""
        return 100 * (self.accuracy + self.accuracy_plus)


def read_task(file: Path) -> list[MmeQuestion]:
    """Read a task's file: lines of three or, with answers, four columns separated by tabs.

    Raises:
        ValueError: for an invalid line; the message names it and what is expected.
    """
    questions = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) not in (3, 4) or columns[2].strip().lower() not in ("yes", "no"):
            raise ValueError(f"{file}: line {number} is not MME's; expected tabs between {COLUMNS}, and an answer")
        label = columns[2].strip().lower() == "yes"
        questions.append(MmeQuestion(columns[0], columns[1], label, columns[3] if len(columns) == 4 else None))
    return questions


def reads(answer: str) -> bool | None:
    """Read an answer by the official rule: True for yes, False for no, None for neither (which is always wrong).

    The first four characters, lower-cased, are searched for "yes" and then "no"; leading white space counts.
    """
    start = answer.lower()[:READ]
    return True if "yes" in start else False if "no" in start else None


def score(answered: Sequence[tuple[str, str, bool]]) -> MmeScore:
    """Score one task from picture, question and whether the answer was right; acc+ is over pictures with two questions.

    A pair that occurs several times counts that many times.
    """
    pictures: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for picture, question, right in answered:
        pictures[picture].append((question, right))
    pairs = [answers for answers in pictures.values() if len({question for question, _ in answers}) == 2]
    size = sum(map(len, pairs))
    whole = sum(len(answers) for answers in pairs if all(right for _, right in answers))
    return MmeScore(mean([right for *_, right in answered]), whole / size if size else 0.0)


def totals(scores: Mapping[str, MmeScore]) -> dict[str, float]:
    """Return perception and cognition from task scores by name; a part is left out if one of its tasks is missing."""
    parts = {"perception": PERCEPTION, "cognition": COGNITION}
    return {
        part: sum(scores[task].score for task in tasks)
        for part, tasks in parts.items()
        if all(task in scores for task in tasks)
    }


# --- the benchmark --------------------------------------------------------------------------------------------------


class Mme(Questions):
    """MME over a folder with the fourteen lists of `eval_tool/Your_Results/` and the release's pictures.

    The lists are `TASK.txt` in the folder itself, in `Your_Results/` or in `eval_tool/Your_Results/`; the pictures of
    a task are in `TASK/` or `TASK/images/`, in the folder itself or in `MME_Benchmark_release_version/`.
    """

    name = "mme"
    title = "MME"
    official_items = 2374
    Settings = BriefSettings
    main = "perception"
    whole_groups = True
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"perception": 1333.1},
        "JanusFlow 256 (paper)": {"perception": 1203.0},
        "Janus (paper)": {"perception": 1338.0},
        "JanusFlow 384 (TorchUMM)": {"perception": 1305.6},
    }
    source = (
        "Your_Results/TASK.txt of its fourteen tasks (eval_tool.zip of the repository "
        "BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation) and the pictures of "
        "MME_Benchmark_release_version.zip, which its authors send, as TASK/NAME or TASK/images/NAME"
    )
    settings: BriefSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        items = []
        for task in (*PERCEPTION, *COGNITION):
            file = folder.find(*(f"{place}{task}.txt" for place in ("", "Your_Results/", "eval_tool/Your_Results/")))
            for number, question in enumerate(folder.parsed(file, read_task), start=1):
                places = [
                    f"{top}{task}/{under}{question.image}"
                    for top in ("", "MME_Benchmark_release_version/")
                    for under in ("", "images/")
                ]
                prompt, system = brief_question(question.text, self.settings.prompt)
                items.append(
                    Item(
                        key=f"{task}/{number:04d}",
                        prompt=prompt,
                        images=(folder.picture(*places),),
                        group=f"{task}/{question.image}",
                        system=system,
                        data={
                            "task": task,
                            "image": question.image,
                            "question": question.text,
                            "label": "Yes" if question.label else "No",
                        },
                    )
                )
        return items

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        said = {True: "Yes", False: "No", None: "other"}[reads(str(output))]
        found = {"score": float(said == item.data["label"]), "said": said}
        return {**found, "unreadable": True} if said == "other" else found

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        tasks: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
        for row in rows:
            data = row.item.data
            tasks[data["task"]].append((data["image"], row.item.key, row.score == 1))
        found = {task: score(tasks[task]) for task in (*PERCEPTION, *COGNITION) if task in tasks}
        return totals(found) | {task: value.score for task, value in found.items()}

    def parts_of(self, score: str) -> tuple[str, ...]:
        return {"perception": PERCEPTION, "cognition": COGNITION}.get(score, ())

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        parts = {"perception": PERCEPTION, "cognition": COGNITION, **{task: (task,) for task in PERCEPTION + COGNITION}}
        return {name: over(row for row in rows if row.item.data["task"] in tasks) for name, tasks in parts.items()}

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write a file for each task with the answers as its fourth column, each on one line."""
        for task in (*PERCEPTION, *COGNITION):
            own = sorted((row for row in rows if row.item.data["task"] == task), key=lambda row: row.item.key)
            lines = [
                "\t".join((*(row.item.data[name] for name in ("image", "question", "label")), one_line(row.output)))
                for row in own
            ]
            if lines:
                write_text(self.official / "Your_Results" / f"{task}.txt", "\n".join(lines) + "\n")


def one_line(text: str) -> str:
    """Put a text on one line: every white space character becomes a space, so the first four stay where they are."""
    return re.sub(r"\s", " ", text).rstrip()
