"""MM-Vet (arXiv 2308.02490): open questions that need several capabilities at once, graded from 0 to 1 by a model.

The official judge is gpt-4-0613. The example rows that the judge sees are our own, written after the official rules, so
scores are not exactly comparable with published ones even with that judge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from janusflow.evaluation.data import Questions
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, by_part
from janusflow.files import write_text

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
TRIES = 5
STEPS = (
    "You are a helpful assistant. Please answer truthfully and write out your thinking step by step to be sure you get "
    "the right answer."
)
GRADING = """\
You grade answers. Each row of the table below holds a question about a picture, the ground truth, a model's \
prediction, and how correct the prediction is: 0.0 is wholly wrong, 1.0 wholly right, and tenths lie between them.
Where parts of the ground truth are joined by <AND>, a wholly right prediction has all of them, and one with some of \
them gets their share; where they are joined by <OR>, any one of them suffices.
Write nothing but the number that is missing in the last row.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which fruits lie on the plate? | apple <AND> pear | There is a banana. | 0.0
Which fruits lie on the plate? | apple <AND> pear | I can see an apple. | 0.5
Which fruits lie on the plate? | apple <AND> pear | A pear and some grapes | 0.5
Which fruits lie on the plate? | apple <AND> pear | pears, and an apple behind them | 1.0
What is 7 minus the number on the sign? | 3 <OR> three | 4 | 0.0
What is 7 minus the number on the sign? | 3 <OR> three | The sign shows a 4, so three is left. | 1.0
Why is the man laughing? | His dog has put on his hat and looks at itself in the mirror, as if it were the man on his \
way to work. | There is a dog with a hat. | 0.3
Why is the man laughing? | His dog has put on his hat and looks at itself in the mirror, as if it were the man on his \
way to work. | The dog wears the man's hat and admires itself in the mirror, as he does before he goes to work. | 1.0
"""
AGAIN = "\nThe correctness of the last row, as one number from 0.0 to 1.0: "


def read_grade(reply: str) -> float | None:
    """Return the number that a judge's reply starts with; None unless its first word is a number from 0 to 1."""
    words = reply.split()
    try:
        grade = float(words[0].rstrip(".,;|"))
    except (IndexError, ValueError):
        return None
    return grade if 0 <= grade <= 1 else None  # "nan" is neither


@dataclass(frozen=True)
class MmVetSettings:
    """Settings of MM-Vet.

    Attributes:
        judge: model that grades, as `judges.open_judge` takes it.
        prompt: "wrapper" adds a system prompt that asks to think step by step, as VLMEvalKit's wrapper of Janus does;
            "plain" has the model's own.
        threads: number of answers graded at once.
    """

    judge: str = ""
    prompt: Literal["wrapper", "plain"] = "wrapper"
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1


class MmVet(Questions):
    """MM-Vet over a folder with `mm-vet.json` and its pictures in `images/`; scores from 0 to 100.

    If the judge gives no number in five tries, the grade is 0, as in the official evaluation.
    """

    name = "mmvet"
    title = "MM-Vet"
    official_items = 218
    Settings = MmVetSettings
    judged_by = "a model that grades answers"
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"overall": 30.9},
        "JanusFlow 256 (paper)": {"overall": 27.4},
        "Janus (paper)": {"overall": 34.3},
        "JanusFlow 384 (TorchUMM)": {"overall": 31.8},
    }
    source = "mm-vet.json and images/, both in mm-vet.zip of the releases of the repository yuweihao/MM-Vet"
    settings: MmVetSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        found = folder.json("mm-vet.json", "mm-vet/mm-vet.json")
        file = folder.read[-1]
        if not isinstance(found, dict):
            raise folder.refusal(file, "contains no questions by their ids")
        items = []
        for number, record in found.items():
            try:
                image, question, answer = (str(record[name]) for name in ("imagename", "question", "answer"))
                capabilities = sorted(map(str, record["capability"]))
            except (KeyError, TypeError) as error:
                wanted = "imagename, question, answer and capability"
                raise folder.refusal(file, f"is another version: {number} lacks one of {wanted}") from error
            items.append(
                Item(
                    key=number,
                    prompt=question,
                    images=(folder.picture(f"images/{image}", f"mm-vet/images/{image}"),),
                    group=image,
                    system=STEPS if self.settings.prompt == "wrapper" else None,
                    data={"question": question, "answer": answer, "capability": capabilities},
                )
            )
        return items

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        truth = item.data["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        prompt = "\n".join((GRADING, " | ".join((item.data["question"], truth, str(output), ""))))
        grade, reply = self.ask_judge(prompt, read=read_grade, tries=TRIES, again=AGAIN)
        if grade is not None:
            return {"score": grade, "reply": reply}
        problem = f"no number from 0 to 1 in {TRIES} replies"
        return {"score": 0.0, "unreadable": True, "reply": reply, "problem": problem}

    def part(self, item: Item) -> str:
        return "+".join(item.data["capability"])

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        first = ("overall", *CAPABILITIES)
        return by_part(rows, lambda row: ("overall", *row.item.data["capability"]), first=first)

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write `results/janusflow.json`: answers by question id."""
        found = {row.item.key: row.output for row in rows}
        write_text(self.official / "results" / "janusflow.json", json.dumps(found, indent=4))
