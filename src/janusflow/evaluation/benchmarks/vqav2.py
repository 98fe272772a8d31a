"""VQAv2 (arXiv 1612.00837): open questions with ten people's answers each, scored by soft accuracy.

The official scorer normalizes answers only if the ten people differ; if they agree, "Yes" is not "yes". Published
numbers therefore come from answers that were normalized before, as the setting `prepare` does here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from janusflow.evaluation.data import DataFolder, Questions
from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Output, Row
from janusflow.evaluation.question_forms import BriefSettings, brief_question
from janusflow.evaluation.score_sample import ScoreSample, by_part
from janusflow.files import write_text

ENOUGH = 3  # an answer that this many people give is fully right
MARKS = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
PERIODS = 32  # at most this many are dropped: the official code passes a flag of this value as the count
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(NUMBER_WORDS)} | {"none": "0"}
ARTICLES = ("a", "an", "the")
CONTRACTED = """\
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = (
    {  # the word without one of its apostrophes: the word
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTED.split()
        for place, mark in enumerate(word)
        if mark == "'"
    }
    | {"somebody'd": "somebodyd"}
)  # the official table has this entry the wrong way round
SPLITS = {"val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}


def normal(answer: str) -> str:
    """Normalize an answer as the official scorer does: punctuation, case, number words, articles, contractions.

    A mark is dropped if it has a space next to it anywhere in the answer, or if the answer has digits with a comma
    between them; otherwise it becomes a space. Periods that are not before a digit are dropped.
    """
    found, in_number = answer, COMMA_IN_NUMBER.search(answer) is not None
    for mark in MARKS:
        spaced = f"{mark} " in answer or f" {mark}" in answer
        found = found.replace(mark, "" if spaced or in_number else " ")
    words = [NUMBERS.get(word, word) for word in PERIOD.sub("", found, count=PERIODS).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(answer: str, answers: Mapping[str, int]) -> float:
    """Return the soft accuracy in [0, 1]: the mean over people left out of min(1, matches among the others / 3).

    Args:
        answer: the model's answer.
        answers: the people's answers, and how many people gave each; ten in all.
    """
    people = Counter[str]()
    for said, count in answers.items():
        people[_plain(said)] += count
    answer = _plain(answer)
    if len(people) > 1:
        answer, merged = normal(answer), Counter[str]()
        for said, count in people.items():
            merged[normal(said)] += count
        people = merged
    matches, size = people[answer], people.total()
    without_one, all_of_them = min(1, (matches - 1) / ENOUGH), min(1, matches / ENOUGH)
    return (matches * without_one + (size - matches) * all_of_them) / size


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@dataclass(frozen=True)
class VqaV2Settings(BriefSettings):
    """Settings of VQAv2.

    Attributes:
        split: "val" has answers; only EvalAI has those of "test" and "test-dev", and scores the file that is written.
        prepare: whether the model's answers are normalized before they are scored and written.
    """

    split: Literal["val", "test", "test-dev"] = "val"
    prepare: bool = True


class VqaV2(Questions):
    """VQAv2 over a folder with its questions, annotations and pictures.

    The files are `v2_OpenEnded_mscoco_val2014_questions.json`, `v2_mscoco_val2014_annotations.json` and the pictures in
    `val2014/`; for the test splits, `v2_OpenEnded_mscoco_test2015_questions.json` (or `test-dev2015`) and `test2015/`.

    Scores are in percent, overall and by answer type and question type. On the test splits there are none: EvalAI
    scores the file that is written.
    """

    name = "vqav2"
    title = "VQAv2"
    Settings = VqaV2Settings
    judging = (*Benchmark.judging, "prepare")
    published: ClassVar = {
        "JanusFlow 384 (paper, test)": {"overall": 79.8},
        "JanusFlow 256 (paper, test)": {"overall": 76.3},
        "Janus (paper, test)": {"overall": 77.3},
    }
    source = (
        "v2_OpenEnded_mscoco_val2014_questions.json and v2_mscoco_val2014_annotations.json (visualqa.org), "
        "and COCO's val2014 pictures (cocodataset.org) in val2014/; for test likewise, without annotations"
    )
    settings: VqaV2Settings

    def items(self) -> list[Item]:
        folder, split = self.open_folder(), SPLITS[self.settings.split]
        questions = _records(folder, f"v2_OpenEnded_mscoco_{split}_questions.json", "questions")
        file = folder.read[-1]
        annotated: dict[Any, dict[str, Any]] = {}
        if self.settings.split == "val":
            annotated = self._annotations(folder, f"v2_mscoco_{split}_annotations.json")
        pictures, items = split.replace("-dev", ""), []
        for record in questions:
            try:
                number, image, question = int(record["question_id"]), int(record["image_id"]), str(record["question"])
            except (KeyError, TypeError, ValueError) as error:
                wanted = "question_id, image_id and question"
                raise folder.refusal(file, f"is another version: a question lacks {wanted}") from error
            if self.settings.split == "val" and number not in annotated:
                raise folder.refusal(folder.read[-1], f"is another version: question {number} has no annotation")
            prompt, system = brief_question(question, self.settings.prompt)
            picture = folder.picture(f"{pictures}/COCO_{pictures}_{image:012d}.jpg")
            data = annotated.get(number, {})
            items.append(Item(str(number), prompt, (picture,), group=str(image), system=system, data=data))
        return items

    def _annotations(self, folder: DataFolder, name: str) -> dict[Any, dict[str, Any]]:
        """Return, by question, the answers with their counts and the types of question and answer."""
        found = {}
        for record in _records(folder, name, "annotations"):
            try:
                answers = Counter(str(person["answer"]) for person in record["answers"])
                kinds = {"question_type": record["question_type"], "answer_type": record["answer_type"]}
                found[int(record["question_id"])] = {"answers": dict(answers), **kinds}
            except (KeyError, TypeError, ValueError) as error:
                wanted = "question_id, answers, question_type and answer_type"
                raise folder.refusal(folder.read[-1], f"is another version: a record lacks {wanted}") from error
            if not answers:
                raise folder.refusal(folder.read[-1], f"is damaged: question {record['question_id']} has no answers")
        return found

    def prepared(self, answer: str) -> str:
        """Return the answer that is scored and written."""
        return normal(_plain(answer)) if self.settings.prepare else answer

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        if "answers" not in item.data:
            raise NotJudgedError(f"only EvalAI has the answers of split {self.settings.split}; upload {self.results}")
        found = {"score": accuracy(self.prepared(str(output)), item.data["answers"])}
        return found if str(output).strip() else {**found, "unreadable": True}

    def part(self, item: Item) -> str:
        return str(item.data.get("answer_type", ""))

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        def parts(row: Row) -> Sequence[str]:
            data = row.item.data
            return "overall", data["answer_type"], f"question_type/{data['question_type']}"

        return by_part(rows, parts)

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write the results file of the official scorer and of EvalAI: a list of question_id and answer."""
        found = [{"question_id": int(row.item.key), "answer": self.prepared(row.output)} for row in rows]
        write_text(self.results, json.dumps(found))

    @property
    def results(self) -> Path:
        """File that `write_official` writes."""
        return self.official / f"v2_OpenEnded_mscoco_{SPLITS[self.settings.split]}_janusflow_results.json"


def _records(folder: DataFolder, name: str, part: str) -> list[dict[str, Any]]:
    """Read the list in an official file of version 2."""
    found = folder.json(name)
    file: Path = folder.read[-1]
    if not isinstance(found, dict) or not isinstance(found.get(part), list):
        raise folder.refusal(file, f"is another version: it contains no list of {part}")
    version = str(found.get("info", {}).get("version", "2.0"))
    if not version.startswith("2"):
        raise folder.refusal(file, f"is of version {version}, not 2.0")
    return found[part]
