"""GQA (arXiv 1902.09506): questions about pictures of Visual Genome, answered in a word or a phrase; exact match.

Published numbers come from answers in lower case without a full stop, as the usual converters write them. The official
scorer itself compares strings. Both scores are given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from janusflow.evaluation.data import Questions
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.question_forms import BriefSettings, brief_question
from janusflow.evaluation.score_sample import ScoreSample, by_part, over
from janusflow.files import write_text

FILE = "testdev_balanced_questions.json"


def prepared(answer: str) -> str:
    """Return an answer in the form for the scorer: stripped, lower-cased, without full stops at its end."""
    return answer.strip().rstrip(".").strip().lower()


class Gqa(Questions):
    """GQA over a folder with `testdev_balanced_questions.json` and its pictures in `images/`.

    Scores are in percent; "strict" compares the model's answer unchanged.
    """

    name = "gqa"
    title = "GQA test-dev"
    official_items = 12578
    Settings = BriefSettings
    main = "accuracy"
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"accuracy": 60.3},
        "JanusFlow 256 (paper)": {"accuracy": 58.4},
        "Janus (paper)": {"accuracy": 59.1},
    }
    source = (
        f"{FILE} from questions1.2.zip, with the pictures of images.zip in images/ (both from GQA's page at "
        "cs.stanford.edu)"
    )
    settings: BriefSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        found = folder.json(FILE, f"questions/{FILE}", f"questions1.2/{FILE}")
        file = folder.read[-1]
        if not isinstance(found, dict):
            raise folder.refusal(file, "contains no questions by their ids")
        items = []
        for number, record in found.items():
            try:
                question, image, answer = (str(record[name]) for name in ("question", "imageId", "answer"))
                kind = record.get("types", {}).get("structural")
            except (KeyError, TypeError, AttributeError) as error:
                wanted = "question, imageId and answer"
                raise folder.refusal(file, f"is another version: question {number} lacks {wanted}") from error
            prompt, system = brief_question(question, self.settings.prompt)
            data = {"answer": answer} | ({"type": "open" if kind == "query" else "binary"} if kind else {})
            picture = folder.picture(f"images/{image}.jpg")
            items.append(Item(number, prompt, (picture,), group=image, system=system, data=data))
        return items

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        said, right = str(output), item.data["answer"]
        found = {"score": float(prepared(said) == prepared(right)), "strict": float(said == right)}
        return found if said.strip() else {**found, "unreadable": True}

    def part(self, item: Item) -> str:
        return str(item.data.get("type", ""))

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        found = by_part(rows, lambda row: ("accuracy", *filter(None, [row.item.data.get("type")])), first=("accuracy",))
        return found | ({"strict": over(rows, lambda row: row.verdict["strict"], whole=100)} if rows else {})

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write `testdev_balanced_predictions.json`: a list of questionId and prediction."""
        found = [{"questionId": row.item.key, "prediction": prepared(row.output)} for row in rows]
        write_text(self.official / "testdev_balanced_predictions.json", json.dumps(found, indent=1))
