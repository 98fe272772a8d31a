"""MMMU (arXiv 2311.16502): college questions, most with options, read and scored by the official rules.

If no option can be read from an answer, the official evaluation picks a random one, and so does this one, with a seed.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from janusflow.evaluation.data import DataFolder, Questions
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.question_forms import BRIEFLY, LETTER_ONLY, choice_question
from janusflow.evaluation.score_sample import ScoreSample, by_part
from janusflow.files import write_text

LONG = 5  # words: only longer answers are searched for the text of an option
MARKS = ",.!?;:'"
KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
START = r"(?:-|(?<!\d))"  # a number begins where digits begin: otherwise a long row of digits takes quadratic time
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,234
    re.compile(START + r"\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1.2e-3
    re.compile(rf"(?:{START}(?:\d+\.\d+|\d+\b)|-?\.\d+)(?![eE][+-]?\d+)(?![,\d])"),  # 1.2
)
PICTURES = tuple(f"image_{number}" for number in range(1, 8))
COLUMNS = ("id", "question", "options", "answer", "question_type", *PICTURES)
PLACE = re.compile(r"<image (\d)>")
PLACEHOLDER = "<image_placeholder>"
DOMAINS = {
    "art and design": "Art Art_Theory Design Music",
    "business": "Accounting Economics Finance Manage Marketing",
    "science": "Biology Chemistry Geography Math Physics",
    "health and medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health"
    ),
    "humanities and social science": "History Literature Psychology Sociology",
    "tech and engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
        "Mechanical_Engineering"
    ),
}
DOMAIN = {subject: domain for domain, subjects in DOMAINS.items() for subject in subjects.split()}
Value = float | str


def read_choice(response: str, options: Mapping[str, str], rng: Random) -> str:
    """Return the letter that a response chooses (see `find_choice`), or a random one if there is none."""
    return find_choice(response, options) or rng.choice(list(options))


def find_choice(response: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that can be read from a response; None if there is none.

    The forms are, in this order: "(A)"; " A "; the text of an option, if the response has more than five words. Of
    several matches, the last one counts. These are the rules of MMMU, and differ from those of MMMU-Pro.
    """
    for mark in MARKS:
        response = response.strip(mark)
    response = f" {response} "
    for form in ("({})", " {} "):
        found = [letter for letter in options if form.format(letter) in response]
        if found:
            return max(found, key=lambda letter: response.rfind(form.format(letter)))
    lower = response.lower()
    if len(response.split()) > LONG:
        found = [letter for letter, text in options.items() if text.lower() in lower]
        if found:
            return max(found, key=lambda letter: lower.rfind(options[letter].lower()))
    return None


def read_open(response: str) -> list[Value]:
    """Return candidate answers from a response to an open question: its key phrases and their numbers, normalized."""
    phrases = _key_phrases(response)
    numbers = [number for phrase in phrases for number in _numbers(phrase)]
    values = [value for part in [*phrases, *numbers] for value in _normal(part)]
    return list(dict.fromkeys(values))


def open_is_right(candidates: Sequence[Value], answers: Sequence[str]) -> bool:
    """Return whether an answer is in a candidate text, or equals a candidate number (rounded to two places)."""
    right = [value for answer in answers for value in _normal(answer)]
    for candidate in candidates:
        if isinstance(candidate, str):
            if any(isinstance(value, str) and value in candidate for value in right):
                return True
        elif candidate in right:
            return True
    return False


def _key_phrases(response: str) -> list[str]:
    """Return the shortest tail after an indicator in each sentence; the whole response if no sentence has one."""
    response = response.strip().strip(".").lower()
    sentences = re.split(r"\.\s(?=[A-Z])|\n", response)
    found = []
    for index, sentence in enumerate(sentences):
        indicators = [*KEYS, "="] if index == len(sentences) - 1 else KEYS
        shortest = ""
        for key in indicators:
            if key in sentence:
                tail = sentence.split(key)[-1].strip()
                if not shortest or len(tail) < len(shortest):  # so the tail after an empty one counts, however long
                    shortest = tail
        if shortest not in (":", ",", ".", "!", "?", ";", "'", ""):
            found.append(shortest)
    return found or [response]


def _numbers(text: str) -> list[str]:
    return [number for pattern in NUMBERS for number in pattern.findall(text)]


def _normal(text: str) -> list[Value]:
    """Return a number rounded to two places, or lower-cased text; a single letter twice, with a space on each side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


# --- the benchmark --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MmmuSettings:
    """Settings of MMMU.

    Attributes:
        prompt: "wrapper" asks as the authors' evaluation does (see `question_forms.py`), with all pictures first and
            the marks <image 1> unchanged; "interleaved" has the same text with each picture in place of its mark;
            "official" asks as MMMU's own run of LLaVA does, pictures first; "plain" has only question and options,
            interleaved.
        seed: seed of the random choices, which depend on the question as well.
    """

    prompt: Literal["wrapper", "interleaved", "official", "plain"] = "wrapper"
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 42


class Mmmu(Questions):
    """MMMU's validation set over a folder with the hub's files `SUBJECT/validation-*.parquet`, which contain pictures.

    Scores are in percent: over all questions ("overall"), by domain and by subject.
    """

    name = "mmmu"
    title = "MMMU val"
    Settings = MmmuSettings
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"overall": 29.3},
        "Janus (paper)": {"overall": 30.5},
        "JanusFlow 384 (TorchUMM)": {"overall": 29.0},
    }
    source = (
        "the files SUBJECT/validation-00000-of-00001.parquet of its thirty subjects (MMMU/MMMU on the Hugging Face hub)"
    )
    settings: MmmuSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        files = sorted(folder.path.glob("*/validation-*.parquet"))
        if not files:
            raise ValueError(f"{folder.path} contains no SUBJECT/validation-*.parquet; expected {self.source}")
        return [self._item(folder, file, row) for file in files for row in folder.parquet(file, COLUMNS)]

    def _item(self, folder: DataFolder, file: Path, row: Mapping[str, Any]) -> Item:
        try:
            name, question = str(row["id"]), str(row["question"])
            options = dict(
                zip(map(chr, range(ord("A"), ord("Z") + 1)), map(str, _as_list(row["options"])), strict=False)
            )
            answers = [str(answer) for answer in _as_list(row["answer"])]
            if row["question_type"] != "multiple-choice":
                options = {}
            elif not options or answers[0] not in options:
                raise ValueError("no such option")
            subject = "_".join(name.split("_")[1:-1])
            pictures = [row[picture] and row[picture]["bytes"] for picture in PICTURES]
        except (KeyError, TypeError, ValueError, SyntaxError, IndexError) as error:
            raise folder.refusal(file, f"is damaged: question {row['id']!r:.60} cannot be read ({error})") from error
        held = {
            number: folder.held_picture(content, f"picture {number} of {name} in {file}")
            for number, content in enumerate(pictures, start=1)
            if content
        }
        prompt, system, order = _ask(question, options, sorted(held), self.settings.prompt)
        data = {"subject": subject, "options": options, "answers": answers}
        return Item(name, prompt, tuple(held[number] for number in order), system=system, data=data)

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        options, answers, said = item.data["options"], item.data["answers"], str(output)
        if not options:
            right = {"score": float(open_is_right(read_open(said), answers))}
            return right if said.strip() else {**right, "unreadable": True}
        letter = read_choice(said, options, Random(f"{self.settings.seed} {item.key}"))
        found = {"score": float(letter in answers), "said": letter}
        return found if find_choice(said, options) else {**found, "unreadable": True}

    def part(self, item: Item) -> str:
        return str(item.data["subject"])

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        def parts(row: Row) -> Sequence[str]:
            subject = row.item.data["subject"]
            return "overall", f"domain/{DOMAIN.get(subject, 'other')}", f"subject/{subject}"

        return by_part(rows, parts)

    def write_judged(self, rows: Sequence[Row]) -> None:
        """Write `total_val_output.json`: by question the letter that was read, or the answer to an open question."""
        found = {row.item.key: row.verdict.get("said", row.output) for row in rows}
        write_text(self.official / "total_val_output.json", json.dumps(found, indent=4))


def _ask(
    question: str, options: Mapping[str, str], pictures: Sequence[int], prompt: str
) -> tuple[str, str | None, list[int]]:
    """Return the prompt, the system prompt, and the pictures' numbers in the order of the prompt's placeholders."""
    system: str | None = ""
    if prompt == "official":
        listed = "".join(f"({letter}) {text}\n" for letter, text in options.items())
        text = f"{question}\n\n{listed}\n\n{LETTER_ONLY}" if options else f"{question}\n\n{BRIEFLY}"
    else:
        text, system = choice_question(question, options, "plain" if prompt == "plain" else "wrapper")
    order: list[int] = []
    if prompt in ("interleaved", "plain"):
        order = [number for number in map(int, PLACE.findall(text)) if number in pictures]
        text = PLACE.sub(lambda mark: PLACEHOLDER if int(mark[1]) in pictures else mark[0], text)
    before = [number for number in pictures if number not in order]
    return (PLACEHOLDER * len(before) + "\n" if before else "") + text, system, [*before, *order]


def _as_list(value: Any) -> list[Any]:
    """Return a column as a list; it is a list, a list's text as Python writes it, or a single value."""
    if isinstance(value, str) and value.startswith("["):
        value = ast.literal_eval(value)
    return value if isinstance(value, list) else [value]
