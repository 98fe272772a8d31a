"""POPE (arXiv 2305.10355): is this object in the picture? Answers are read and scored by the official rules.

There are three sets of 3,000 questions (random, popular, adversarial) over COCO, and others over A-OKVQA and GQA in the
same format.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from janusflow.evaluation.data import Questions, mean
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.question_forms import BriefSettings, brief_question
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.files import loads, write_text

NO = ("No", "no", "not")
SETS = ("random", "popular", "adversarial")
FILES = {  # pictures of a set: its file, its folder in the repository, and the folder of the pictures
    "coco": ("coco_pope_{}.json", "output/coco", "val2014"),
    "aokvqa": ("aokvqa_pope_seem_{}.json", "output/seem/aokvqa", "val2014"),
    "gqa": ("gqa_pope_seem_{}.json", "output/seem/gqa", "images"),
}


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
    """Scores of one set; "yes" is the positive answer. Shares with a denominator of 0 are 0."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def read_questions(file: Path) -> list[PopeQuestion]:
    """Read a file of the official repository: JSON Lines (COCO) or one JSON array (the SEEM sets).

    Raises:
        ValueError: for an invalid file or record; the message names the file, the record, and what it lacks.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = (
            loads(text, finite=False)
            if text.lstrip().startswith("[")
            else [loads(line, finite=False) for line in text.splitlines()]
        )
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error} (POPE's files are JSON lines or a JSON array)") from error
    if not found:
        raise ValueError(f"{file} is empty; POPE's files are JSON lines or a JSON array")
    questions = []
    for place, record in enumerate(found, start=1):
        try:
            label = {"yes": True, "no": False}[record["label"].strip().lower()]
            questions.append(PopeQuestion(int(record["question_id"]), record["image"], record["text"], label))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wanted = "question_id, image, text, and label yes or no"
            raise ValueError(f"{file}: record {place} is not POPE's, which has {wanted}") from error
    return questions


def says_yes(answer: str) -> bool:
    """Read an answer by the official rule: it is "yes" unless its first sentence has the word No, no or not.

    Commas are dropped and the sentence is split at spaces, so "nothing" and "NO" do not count.
    """
    sentence = answer.split(".")[0].replace(",", "")
    return not any(word in NO for word in sentence.split(" "))


def is_readable(answer: str) -> bool:
    """Return whether an answer's first sentence says no as the official rule reads it, or yes in any case."""
    sentence = answer.split(".")[0]
    return not says_yes(answer) or re.search(r"\byes\b", sentence, re.IGNORECASE) is not None


def score(labels: Sequence[bool], said: Sequence[bool]) -> PopeScore:
    """Score answers as they were read, in the order of the labels; True is yes."""
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


def _samples(rows: Sequence[Row]) -> dict[str, ScoreSample]:
    """Return the values behind each number of `PopeScore`."""
    said = [row for row in rows if row.verdict["said"] == "yes"]
    return {
        "accuracy": over(rows, whole=100),
        "precision": over(said, whole=100),
        "recall": over((row for row in rows if row.item.data["label"]), whole=100),
        "f1": over(rows),
        "yes_ratio": over(rows, lambda row: row.verdict["said"] == "yes", whole=100),
    }


# --- the benchmark --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PopeSettings(BriefSettings):
    """Settings of POPE.

    Attributes:
        pictures: pictures of the sets: the paper's over "coco", or the repository's over "aokvqa" or "gqa".
    """

    pictures: Literal["coco", "aokvqa", "gqa"] = "coco"


class Pope(Questions):
    """POPE over a folder with `coco_pope_{random,popular,adversarial}.json` and COCO's pictures in `val2014/`.

    The files may also be in `output/coco/`, as in the repository. With `pictures` "aokvqa" they are
    `aokvqa_pope_seem_*.json` (`output/seem/aokvqa/`); with "gqa" `gqa_pope_seem_*.json` and the pictures in `images/`.

    Scores are in percent, for each set and as the mean over the sets. The paper does not say how it averages.
    """

    name = "pope"
    title = "POPE"
    caveat = "The papers do not say whether their POPE figures are F1 or accuracy, and over which sets."
    Settings = PopeSettings
    main = "f1"
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"f1": 88.0},
        "JanusFlow 256 (paper)": {"f1": 85.3},
        "Janus (paper)": {"f1": 87.0},
    }
    source = (
        "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json from the repository "
        "RUCAIBox/POPE (output/coco), and COCO's val2014 pictures (cocodataset.org) in val2014/"
    )
    settings: PopeSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        file, inside, pictures = FILES[self.settings.pictures]
        items = []
        for kind in SETS:
            name = file.format(kind)
            place = folder.find(name, f"{inside}/{name}")
            for number, question in enumerate(folder.parsed(place, read_questions), start=1):
                text = question.text.replace(" Please answer yes or no.", "")
                prompt, system = brief_question(text, self.settings.prompt)
                items.append(
                    Item(
                        key=f"{kind}/{number:05d}",
                        prompt=prompt,
                        images=(folder.picture(f"{pictures}/{question.image}", question.image),),
                        group=question.image,
                        system=system,
                        data={"set": kind, "question": question.text, "label": question.label},
                    )
                )
        return items

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        yes = says_yes(str(output))
        found = {"score": float(yes == item.data["label"]), "said": "yes" if yes else "no"}
        return found if is_readable(str(output)) else {**found, "unreadable": True}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        sets: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            sets[row.item.data["set"]].append(row)
        found = {
            kind: asdict(score([row.item.data["label"] for row in own], [row.verdict["said"] == "yes" for row in own]))
            for kind, own in sorted(sets.items(), key=lambda pair: SETS.index(pair[0]))
        }
        names = list(PopeScore.__dataclass_fields__)
        means = {name: 100 * mean([values[name] for values in found.values()]) for name in names if found}
        return means | {f"{kind}/{name}": 100 * found[kind][name] for kind in found for name in names}

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        found: dict[str, ScoreSample] = {}
        for kind in ("", *SETS):
            own = [row for row in rows if kind in ("", row.item.data["set"])]
            found |= {f"{kind}/{name}" if kind else name: sample for name, sample in _samples(own).items() if own}
        return found

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write the answer files for the repository's evaluation: JSON Lines of question and answer, in set order."""
        file, _, _ = FILES[self.settings.pictures]
        for kind in SETS:
            own = sorted((row for row in rows if row.item.data["set"] == kind), key=lambda row: row.item.key)
            lines = [json.dumps({"question": row.item.data["question"], "answer": row.output}) for row in own]
            if lines:
                write_text(self.official / "answer" / file.format(kind), "\n".join(lines) + "\n")
