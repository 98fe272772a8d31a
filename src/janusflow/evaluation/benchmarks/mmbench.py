"""MMBench (arXiv 2307.06281): questions with options, asked once for each rotation of the options.

Circular accuracy counts a question only if all its rotations (rows whose index is equal modulo a million) are right.
Vanilla accuracy is over the rows as first asked (index below a million). An answer is read by rule, first as a letter
and then as an option's text, and then by a model if one is named; what cannot be read is wrong.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from janusflow.evaluation.data import DataFolder, Questions
from janusflow.evaluation.protocol import Item, NotJudgedError, Output, Row
from janusflow.evaluation.question_forms import choice_question, listed
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.files import write_text

LETTERS = "ABCD"
TURN = 1_000_000  # difference between the indices of a question's rotations
COLUMNS = ("index", "question", "A", "B", "image")
UNSTATED = "scheme not stated"
GROUPS = ("l2-category", "category")
FILES = ("MMBench_DEV_EN.tsv", "mmbench_dev_en_20231003.tsv", "mmbench_dev_20230712.tsv")
MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LAST = 4  # words at the end of an answer that may contain its letter
REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
REFERENCE = 64  # characters: a shorter image column is the index of the row that contains the picture
NONE = "Z"
MATCHING = """\
A model was given a question with options and replied in its own words. Which option does its reply mean? Write that \
option's letter and nothing else; write Z if the reply means none of them.

Question: What is on the chair?
A. a sleeping dog
B. an umbrella
Reply: Somebody has left their brolly there.
Letter: B

Question: What is on the chair?
A. a sleeping dog
B. an umbrella
Reply: The chair is empty.
Letter: Z

Question: {question}
{options}
Reply: {reply}
Letter:"""


def read_option(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer means by rule; None if it is unclear.

    First by letter: the only option letter that is a word of the answer, if its first occurrence is among the last
    four words. Otherwise by text: the only option whose text is in the answer, if the answer is not more than twice
    as long as all options.
    """
    if any(refusal in answer for refusal in REFUSALS):
        return None
    words = answer.translate(MARKS).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - LAST:
        return found[0]
    lower = answer.lower()
    if len(lower) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in lower]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class MmBenchSettings:
    """Settings of MMBench.

    Attributes:
        prompt: form of the question; see `question_forms.py`.
        judge: model that reads what the rules cannot, as `judges.open_judge` takes it; "" for none.
        threads: number of answers read at once.
        file: name of the TSV file; "" for the English dev set under one of its official names.
    """

    prompt: Literal["wrapper", "plain"] = "wrapper"
    judge: str = ""
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1
    file: str = ""


class MmBench(Questions):
    """MMBench over a folder with its English dev set, `MMBench_DEV_EN.tsv` (which contains the pictures in base64).

    Scores are in percent: circular and vanilla, and circular by ability ("l2-category") and "category". Without
    rotations in the file there is no circular score; without answers, as in the test set, there is no score at all.
    Published figures do not say which of the two they are.
    """

    name = "mmbench"
    title = "MMBench dev"
    Settings = MmBenchSettings
    main = "circular"
    whole_groups = True
    published: ClassVar = {
        "JanusFlow 384 (paper)": {UNSTATED: 74.9},
        "JanusFlow 256 (paper)": {UNSTATED: 71.9},
        "Janus (paper)": {UNSTATED: 69.4},
        "JanusFlow 384 (TorchUMM)": {UNSTATED: 64.86},
    }
    source = f"{FILES[0]} (the English dev set with its rotations, as OpenCompass hands it out)"
    settings: MmBenchSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        file = folder.find(self.settings.file) if self.settings.file else folder.find(*FILES)
        rows: dict[int, Mapping[str, str]] = {}
        for number, row in folder.tsv(file, COLUMNS):
            if rows.setdefault(index := self._index(folder, file, number, row), row) is not row:
                raise folder.refusal(file, f"is damaged: index {index} occurs twice, again in row {number}")
        if not rows:
            raise folder.refusal(file, "contains no questions")
        pictures: dict[int, bytes] = {}
        rotations = Counter(index % TURN for index in rows)
        return [
            self._item(index, row, self._picture(folder, file, index, rows, pictures), rotations[index % TURN])
            for index, row in rows.items()
        ]

    def _index(self, folder: DataFolder, file: Path, number: int, row: Mapping[str, str]) -> int:
        answer = row.get("answer")  # the test set has none
        if not row["index"].isdecimal() or (answer is not None and answer not in _options(row)):
            raise folder.refusal(file, f"is damaged: row {number} has no index, or no option {answer!r:.20}")
        return int(row["index"])

    def _picture(
        self, folder: DataFolder, file: Path, index: int, rows: Mapping[int, Mapping[str, str]], known: dict[int, bytes]
    ) -> bytes:
        """Return a row's picture, which may be in another row."""
        where, holder = f"the picture of index {index} in {file}", index
        for _ in range(2):
            text = rows[holder]["image"]
            if len(text) > REFERENCE or not text.isdecimal():
                break
            holder = int(text)
            if holder not in rows and folder.unchecked:
                return b""
            if holder not in rows:
                raise ValueError(f"{where} should be that of index {holder}, which is missing; expected {self.source}")
        if holder not in known:
            known[holder] = folder.held_picture(rows[holder]["image"], where)
        return known[holder]

    def _item(self, index: int, row: Mapping[str, str], picture: bytes, rotations: int) -> Item:
        prompt, system = choice_question(row["question"], _options(row), self.settings.prompt, hint=row.get("hint", ""))
        data = {
            "index": index,
            "rotations": rotations,
            "question": row["question"],
            "options": _options(row),
            "answer": row.get("answer", ""),
        }
        data |= {name: row[name] for name in GROUPS if row.get(name)}
        return Item(str(index), prompt, (picture,), group=str(index % TURN), system=system, data=data)

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        options, answer = item.data["options"], str(output)
        if not item.data["answer"]:
            raise NotJudgedError(
                f"{self._file} has no answers, as MMBench's test set: what is scored elsewhere lies in {self.official}"
            )
        said, how = read_option(answer, options), "rule"
        if said is None and self.settings.judge:
            said, how = self._match(item.data["question"], options, answer), "judge"
        found = {"score": float(said == item.data["answer"]), "said": said or NONE, "read by": how}
        return found if said else {**found, "unreadable": True}

    def _match(self, question: str, options: Mapping[str, str], answer: str) -> str | None:
        prompt = MATCHING.format(question=question, options=listed(options), reply=answer)
        letter, _ = self.ask_judge(prompt, read=lambda reply: _first_letter(reply, (*options, NONE)))
        return None if letter == NONE else letter

    def part(self, item: Item) -> str:
        return str(item.data.get("category", ""))

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        turns: dict[int, dict[int, bool]] = defaultdict(dict)
        for row in rows:
            turns[row.item.data["index"] % TURN][row.item.data["index"]] = row.score == 1
        vanilla, circular = [], defaultdict[str, list[bool]](list)
        groups: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            data = row.item.data
            if data["index"] >= TURN:
                continue
            vanilla.append(row)
            own = turns[data["index"]]
            if len(own) == data["rotations"]:  # else some were not asked
                parts = [f"{name}/{data[name]}" for name in GROUPS if name in data]
                for part in ("circular", *parts):
                    circular[part].append(all(own.values()))
                    groups[part].append(row.item.group)
        if all(row.item.data["rotations"] == 1 for row in rows):
            circular.clear()
        names = [part for part in ("circular", *sorted(circular)) if part in circular]
        found = {part: ScoreSample(circular[part], groups[part], 100) for part in names}
        return found | ({"vanilla": over(vanilla, whole=100)} if vanilla else {})

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write `MMBench_DEV_EN.tsv` with a column "prediction", without the pictures, as VLMEvalKit scores it."""
        text = io.StringIO()
        answer = ["answer"] if any(row.item.data["answer"] for row in rows) else []
        names = ["index", "question", *LETTERS, *answer, *GROUPS, "prediction"]
        table = csv.DictWriter(text, names, delimiter="\t", lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        for row in rows:
            table.writerow({**row.item.data, **row.item.data["options"], "prediction": row.output})
        write_text(self.official / self._file, text.getvalue())

    @property
    def _file(self) -> str:
        return self.settings.file or FILES[0]


def _first_letter(reply: str, letters: Sequence[str]) -> str | None:
    """Return a reply's first word if it is one of the letters."""
    words = reply.translate(MARKS).split()
    return words[0] if words and words[0] in letters else None


def _options(row: Mapping[str, str]) -> dict[str, str]:
    return {letter: row[letter] for letter in LETTERS if row.get(letter)}
