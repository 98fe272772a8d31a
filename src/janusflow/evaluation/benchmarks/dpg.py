"""DPG-Bench (ELLA, arXiv 2403.05135): 1,065 dense prompts, each with yes/no questions about its pictures.

A question's parents are asked as well: if one is "no", the question counts as "no". This is applied in the order of the
file, so a "no" is inherited. The score is 100 times the mean over a picture's questions, a prompt's four pictures, and
prompts.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.data import find_file, read_text
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample
from janusflow.pipelines.sheet import save_png
from janusflow.processing.images import load_image

IMAGES = 4  # per prompt, in a grid of two rows
COLUMNS = (
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)
QUESTION = "{question} Look at the picture and answer with yes or no only."


@dataclass(frozen=True)
class DpgQuestion:
    """One question.

    Attributes:
        number: number within its prompt.
        text: the question.
        parents: numbers of the questions that must be yes as well.
        category: category such as "attribute - color"; the part before " - " is the broad one.
        first: whether it is in the first row of the file, which the official scorer loses.
    """

    number: int
    text: str
    parents: tuple[int, ...]
    category: str
    first: bool = False


def read_questions(file: Path) -> dict[str, list[DpgQuestion]]:
    """Read the questions of each prompt, by its id, from `dpg_bench.csv`; of two with one number, the later counts.

    Raises:
        ValueError: for an invalid line; the message names it and what is expected.
    """
    found: dict[str, dict[int, DpgQuestion]] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        try:
            if tuple(next(reader, ())) != COLUMNS:
                raise ValueError("other columns")
            for place, row in enumerate(reader):
                record = dict(zip(COLUMNS, row, strict=True))
                question = _question(record, first=place == 0)
                found.setdefault(record["item_id"], {})[question.number] = question
        except (ValueError, csv.Error) as error:
            wanted = f"columns {', '.join(COLUMNS)}, a number as proposition_id, numbers between commas as dependency"
            raise ValueError(
                f"{file}: line {reader.line_num} is not DPG-Bench's ({error}); expected {wanted}"
            ) from error
    return {name: list(questions.values()) for name, questions in found.items()}


def _question(record: Mapping[str, str], *, first: bool) -> DpgQuestion:
    numbers = [int(part) for part in record["dependency"].split(",")]
    return DpgQuestion(
        number=int(record["proposition_id"]),
        text=record["question_natural_language"],
        parents=tuple(number for number in numbers if number),
        category=record["tuple"].split("(")[0].strip(),
        first=first,
    )


def zeroed(questions: Sequence[DpgQuestion], answers: Mapping[int, int]) -> dict[int, int]:
    """Return answers by number, in file order, with 0 if a parent's is 0 by then; absent parents have no effect."""
    values = {question.number: answers[question.number] for question in questions}
    for question in questions:
        if any(values.get(parent) == 0 for parent in question.parents):
            values[question.number] = 0
    return values


def is_readable(reply: str) -> bool:
    """Return whether a reply's first word is yes or no."""
    return re.match(r"\W*(yes|no)\b", reply, re.IGNORECASE) is not None


def says_yes(reply: str) -> bool:
    """Return whether a reply's first word is yes; anything else counts as no."""
    return re.match(r"\W*yes\b", reply, re.IGNORECASE) is not None


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Join four same-size pictures as the official scorer cuts them: top left, top right, bottom left, bottom right."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width, 2 * height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % 2 * width, place // 2 * height))
    return sheet


@dataclass(frozen=True)
class DpgSettings:
    """Settings of DPG-Bench.

    Attributes:
        judge: model that answers questions about pictures, as `judges.open_judge` takes it. Published figures come
            from mPLUG-large; figures from other judges are not comparable with them.
        mode: "official" scores with both faults of the published scorer: categories only take the last picture's
            answers, before zeroing; the first row of the file is lost, and a prompt that then lacks a parent is left
            out. "fixed" has neither fault.
        resolution: side of a picture in the official grid and for the judge; 0 for the pictures' own.
        seed: seed of each prompt's first picture; the next pictures have the next seeds.
        threads: number of pictures judged at once.
    """

    judge: str = ""
    mode: Literal["official", "fixed"] = "official"
    resolution: Annotated[int, Interval(ge=0, le=65_536)] = 0
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1


def _published(*scores: float) -> dict[str, float]:
    names = ("global", "entity", "attribute", "relation", "other", "overall")
    return dict(zip(names, scores, strict=True))


class Dpg(Benchmark):
    """DPG-Bench: an item is one picture, and its group is the prompt.

    Scores are in percent: "overall", the broad categories ("entity"), and the detailed ones ("entity - whole"), each
    over all of its questions.
    """

    name = "dpg"
    title = "DPG-Bench"
    whole_groups = True
    official_items = 4260
    caveat = "Published figures come from the judge mPLUG-large; those of another judge are not comparable with them."
    draws = True
    Settings = DpgSettings
    judged_by = "a model that answers questions about pictures"
    judging = (*Benchmark.judging, "mode", "resolution")
    source = "prompts/ID.txt and dpg_bench.csv from the folder dpg_bench/ of github.com/TencentQQGYLab/ELLA"
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "JanusFlow 384 (paper)": _published(87.03, 87.31, 87.39, 89.79, 88.10, 80.09),
        "JanusFlow 256 (paper)": _published(91.20, 88.83, 88.00, 87.60, 89.53, 81.23),
        "JanusFlow 384 (TorchUMM)": {"overall": 72.03},
    }

    def items(self) -> list[Item]:
        """Return four items for each prompt, in the order of the question file."""
        prompts = {file.stem: file for file in sorted(self._prompts.glob("*.txt"))}
        questions = read_questions(self._csv)
        lacking = next((name for name in prompts if name not in questions), None)
        if lacking is not None or not prompts:
            missing = f"{self._csv} has no question on {lacking}" if prompts else f"{self._prompts} has no prompts"
            raise ValueError(f"{missing}; expected {self.source}")
        found = []
        for name in (name for name in questions if name in prompts):
            prompt = read_text(prompts[name]).strip()
            asked = [{**vars(question), "parents": list(question.parents)} for question in questions[name]]
            for image in range(IMAGES):
                data = {"image": image, "questions": asked}
                found.append(Item(f"{name}/{image}", prompt, seed=self.settings.seed + image, group=name, data=data))
        return found

    def files(self) -> list[Path]:
        return [self._csv, *sorted(self._prompts.glob("*.txt"))]

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return all answers, 1 for yes, by the question's number; the score is their mean after zeroing."""
        assert isinstance(output, Image.Image)
        picture, questions = self._cell(output), _questions(item)
        answers, unread = {}, 0
        for question in questions:
            asked = QUESTION.format(question=question.text)
            _, reply = self.ask_judge(asked, [picture], read=lambda reply: reply.strip() or None, tries=1)
            answers[question.number] = int(says_yes(reply))
            unread += not is_readable(reply)
        values = zeroed(questions, answers).values()
        found = {"score": sum(values) / len(values), "answers": {str(number): yes for number, yes in answers.items()}}
        return {**found, "unreadable": unread} if unread else found

    def part(self, item: Item) -> str:
        """Return the prompt's source, with which its id begins ("partiprompts97")."""
        return item.group.rstrip("0123456789")

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return {name: 100 * sum(one.values) / one.n for name, one in self.samples(rows).items()}

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        official = self.settings.mode == "official"
        means: list[tuple[float, str]] = []
        categories: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for prompt in by_prompt(rows):
            group = prompt[0].item.group
            questions = _questions(prompt[0].item)
            if official:
                questions = [question for question in questions if not question.first]
                numbers = {question.number for question in questions}
                if not questions or any(not numbers.issuperset(question.parents) for question in questions):
                    continue
            shares = []
            for row in prompt:
                answers = {int(number): said for number, said in row.verdict["answers"].items()}
                values = zeroed(questions, answers)
                shares.append(sum(values.values()) / len(values))
                if official and row.item.data["image"] != IMAGES - 1:
                    continue
                for question in questions:
                    said = (answers if official else values)[question.number]
                    for name in {question.category, question.category.split("-")[0].strip()}:
                        categories[name].append((said, group))
            means.append((sum(shares) / len(shares), group))
        named = [*sorted(categories.items()), *([("overall", means)] if means else [])]
        return {
            name: ScoreSample([value for value, _ in values], [group for _, group in values], 100)
            for name, values in named
        }

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write a grid `grids/ID.png` for each prompt with all four pictures."""
        folder = self.out / "grids"
        for prompt in by_prompt(rows):
            if len(prompt) < IMAGES:
                continue
            prompt = sorted(prompt, key=lambda row: int(row.item.data["image"]))
            pictures = [self._cell(load_image(self.out / row.output)) for row in prompt]
            folder.mkdir(parents=True, exist_ok=True)
            save_png(grid(pictures), folder / f"{prompt[0].item.group}.png", {"prompt": prompt[0].item.prompt})

    def _cell(self, picture: Image.Image) -> Image.Image:
        side = self.settings.resolution
        fits = not side or picture.size == (side, side)
        return picture if fits else picture.resize((side, side), Image.Resampling.LANCZOS)

    @property
    def _prompts(self) -> Path:
        return self._csv.parent / "prompts"

    @property
    def _csv(self) -> Path:
        return find_file(self, "dpg_bench.csv")


def by_prompt(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each prompt; a prompt that occurs several times is returned that many times."""
    copies: Counter[str] = Counter()
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        copies[row.item.key] += 1
        found[row.item.group, copies[row.item.key]].append(row)
    return list(found.values())


def _questions(item: Item) -> list[DpgQuestion]:
    return [DpgQuestion(**{**asked, "parents": tuple(asked["parents"])}) for asked in item.data["questions"]]
