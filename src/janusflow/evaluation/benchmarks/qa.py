"""A user's own questions about pictures, from a JSON or JSON Lines file, scored by a rule per file or per question.

`QuestionFile` reads the records; `RULES` and `Qa.judge` score the answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Interval

from janusflow.data.records import IMAGE_TAG
from janusflow.evaluation.benchmarks.vqav2 import normal
from janusflow.evaluation.data import Questions
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.question_file import QuestionFile
from janusflow.evaluation.score_sample import ScoreSample, by_part
from janusflow.processing.images import load_image

Rule: TypeAlias = Literal["exact", "contains", "any-of", "judge"]
SEPARATORS = re.compile(  # marks that end a word, but not those inside numbers, contractions and abbreviations
    r"[*#`\"“”„«»…]|(?<!\d)[,:]|[,:](?!\d)|(?<!\w)['‘’]|['’](?!\w)"
    r"|(?<=[^\W\d]{2})\.|(?<=\d)\.(?=[^\W\d])|(?<=\b[^\W\d])\.(?=[^\W\d]{2})"
)
MINUS = re.compile(r"(?<![\w)])[-−](?=\.?\d)")
WITH_ANSWER = """\
Decide whether an answer to a question is correct.

Question: {question}
Correct answer: {answers}
Answer to judge: {output}

The answer is correct if it means the same as the correct answer; wording, case and extra detail do not matter, unless \
they contradict it. Reply with yes or no only."""
WITHOUT_ANSWER = """\
Decide whether an answer to a question is correct{pictures}.

Question: {question}
Answer to judge: {output}

Reply with yes or no only."""


def normalized(text: str) -> str:
    """Return text as VQAv2's scorer compares it: lower case, no punctuation or articles, numbers up to ten as digits.

    Three things differ. A minus sign before a number counts ("-5" is not "5"), and a text of which nothing would
    remain, such as the letter "A", keeps its articles: the official rules make wrong answers right there. Marks around
    a word are spaces, as in "**Cat**", "a dog,cat" or "Answer:cat", which the official rules join or keep.
    """
    text = MINUS.sub("minus", " ".join(SEPARATORS.sub(" ", text).split()))
    return normal(text) or text.strip(" .,;:!?\"'()[]").lower()


def equal(output: str, answers: Sequence[str]) -> bool:
    """Return whether an output is one of the answers, after `normalized`."""
    return normalized(output) in {normalized(answer) for answer in answers}


def contains(output: str, answers: Sequence[str]) -> bool:
    """Return whether an output contains one of the answers as whole words, after `normalized`.

    An answer that is an article, such as the letter "A", must occur in the same case and not before a noun: it is in
    "The answer is A." but not in "A dog".
    """
    text = f" {normalized(output)} "
    for answer in answers:
        if normal(answer):
            if f" {normalized(answer)} " in text:
                return True
        elif re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)(?!\s+(?!is\b)\w)", output):
            return True
    return False


RULES: Mapping[str, Callable[[str, Sequence[str]], bool]] = {"exact": equal, "any-of": equal, "contains": contains}


@dataclass(frozen=True)
class QaSettings:
    """Settings of a user's own questions.

    Attributes:
        rule: rule for questions without a rule of their own; by default the file's, otherwise "exact" for one accepted
            answer and "any-of" for several.
        judge: model for the rule "judge", as `judges.open_judge` takes it.
        threads: number of answers judged at once.
    """

    rule: Rule | None = None
    judge: str = ""
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1


class Qa(Questions):
    """Questions from a file: see docs/evaluation.md for its fields.

    Scores are percentages: "overall", and "category/NAME" where records have a category.

    Example:
        >>> record = '{"image": "scene.png", "question": "what is it?", "answer": "a circle"}'
        >>> _ = Path("questions.jsonl").write_text(record)
        >>> benchmark = Qa(Path("questions.jsonl"), QaSettings(rule="contains"))
        >>> [item.prompt for item in benchmark.items()]
        ['what is it?']
    """

    name = "qa"
    title = "Questions"
    Settings = QaSettings
    judging = (*Benchmark.judging, "rule")
    source = "a JSON or JSON Lines file with questions and answers (--data FILE), see docs/evaluation.md"
    settings: QaSettings
    _asks_judge: bool | None = None  # known once the items are read

    def __init__(self, data: Path | None, settings: Any) -> None:
        super().__init__(data, settings)
        if data is not None:
            self.title = f"{type(self).title} of {data.name}"  # type: ignore[misc]

    def items(self) -> list[Item]:
        file = QuestionFile(self.data, self.source, rules=(*RULES, "judge"), rule=self.settings.rule)
        items = file.items()
        self._folder = file.folder
        self._asks_judge = any(item.data["rule"] == "judge" for item in items)
        return items

    def check_judge(self) -> None:
        """Check that a judge is named if an item needs one.

        Raises:
            ValueError: if none is named; the message says how to name one.
        """
        if self._asks_judge is None:
            self.items()
        if self._asks_judge and not self.settings.judge:
            raise ValueError(
                f"{self.data} has questions with the rule 'judge'; name a model that judges with --set judge=..."
            )

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        """Answer several items in one batch; earlier turns of a conversation come first, with the file's answers."""
        return list(model.chat_batch([_talk(model, item) for item in items], **options))

    def also_shown(self, item: Item) -> Any:
        return item.data.get("earlier")

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        rule, answers, said = item.data["rule"], item.data["answers"], str(output)
        if rule != "judge":
            return {"score": float(RULES[rule](said, answers)), "rule": rule, "accepted": list(answers)}
        known = {"question": item.data["question"], "output": said.strip() or "(nothing)"}
        if answers:
            prompt, pictures = WITH_ANSWER.format(**known, answers=" or ".join(answers)), []
        else:
            pictures = [load_image(picture) for picture in item.images]
            about = " about the pictures shown" if pictures else ""
            prompt = WITHOUT_ANSWER.format(**known, pictures=about)
        yes, reply = self.ask_judge(prompt, pictures, read=_yes_or_no)
        if yes is None:
            raise self.no_verdict(reply)
        return {"score": float(yes), "rule": rule, "accepted": list(answers), "reply": reply}

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        def parts(row: Row) -> Sequence[str]:
            category = row.item.data["category"]
            return ("overall", f"category/{category}") if category else ("overall",)

        return by_part(rows, parts)


def _yes_or_no(reply: str) -> bool | None:
    """Return whether a reply's first word is yes; None if it is neither yes nor no."""
    word = next(iter(re.findall(r"\w+", reply.lower())), "")
    return word == "yes" if word in ("yes", "no") else None


def _talk(model: Any, item: Item) -> list[dict[str, Any]]:
    """Return an item as messages: the turns before it with the file's answers, then its question.

    Each message has the pictures that its text places; if none are placed, the first message has them all.
    """
    earlier: Sequence[Sequence[str]] = item.data.get("earlier", ())
    asked = [*(question for question, _ in earlier), item.prompt]
    if not any(IMAGE_TAG in text for text in asked):
        asked[0] = model.processor.question(asked[0], len(item.images))
    left, talk = list(item.images), []
    for place, text in enumerate(asked):
        count = text.count(IMAGE_TAG)
        talk.append({"role": "user", "content": text, "images": left[:count]})
        left = left[count:]
        if place < len(earlier):
            talk.append({"role": "assistant", "content": earlier[place][1]})
    return talk if item.system is None else [{"role": "system", "content": item.system}, *talk]
