"""Generated pictures and questions of the shipped model's world; needs no data.

`items.py` makes the prompts and questions, the checker judges pictures, and `verdicts.py` judges answers.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from janusflow.evaluation.protocol import Benchmark, Item, Output, Row, conversation
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.evaluation.spread import total_variation
from janusflow.evaluation.vision.frechet import frechet_distance
from janusflow.tinyworld.captions import GENEVAL_KINDS, Task
from janusflow.tinyworld.checker import read, verdict_on
from janusflow.tinyworld.features import Features
from janusflow.tinyworld.items import ASKED, NEGATIVES, SPREAD, TURNS, WorldSettings, to_answer, to_generate
from janusflow.tinyworld.spread import FACTORS, bins, sampled
from janusflow.tinyworld.verdicts import as_read, can_be_read, dense_answers, yes_f1

MEANS = {  # scores that are means over kinds
    "drawing": tuple(GENEVAL_KINDS),
    "answering": (*(f"exists, {one}" for one in NEGATIVES), *ASKED, "talk"),
}
MAX_NEW_TOKENS = 96


class TinyWorld(Benchmark):
    """Benchmark of GenEval's six kinds of prompts, dense prompts, and all kinds of questions.

    Dense prompts have dependent questions, as in DPG-Bench. Yes/no questions have three kinds of negatives, as in POPE.
    Talks have three turns. The score "drawing" is the mean over the six kinds of prompts, with combinations that
    training shows. "answering" is the mean over the kinds of questions, and "overall" the mean of both.
    """

    name: ClassVar[str] = "tinyworld"
    whole_groups: ClassVar[bool] = True
    title: ClassVar[str] = "The tiny world"
    draws: ClassVar[bool] = True
    asks: ClassVar[bool] = True
    Settings: ClassVar[type] = WorldSettings
    judging = (*Benchmark.judging, "features")
    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": MAX_NEW_TOKENS}
    swept: ClassVar[str] = "drawing"
    for_sweeps: ClassVar[Mapping[str, Any]] = {"questions": 0, "all_kinds": False, "features": False}
    source: ClassVar[str] = "made by the package, no data needed"

    def __init__(self, data: Path | None, settings: WorldSettings) -> None:
        super().__init__(data, settings)
        self.tasks: dict[str, Task] = {}
        self._features = Features(self.tasks)

    def items(self) -> list[Item]:
        generated = to_generate(self.settings)
        self.tasks.update({item.key: task for item, task in generated})
        return [*(item for item, _ in generated), *to_answer(self.settings)]

    def drawn(self, item: Item) -> bool:
        return item.key.startswith("draw/")

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        if self.drawn(items[0]):
            return super().produce(model, items, options)
        answering = self.decoding(options)
        talks = [conversation(model, item) for item in items]
        answers: list[list[str]] = [[] for _ in items]
        for turn in range(TURNS):
            going = [n for n, item in enumerate(items) if turn < len(item.data["answers"])]
            if not going:
                break
            said = model.chat_batch([talks[n] for n in going], **answering)
            for n, text in zip(going, said, strict=True):
                answers[n].append(" ".join(text.split()))  # one line per turn
                if turn + 1 < len(items[n].data["answers"]):
                    question = {"role": "user", "content": items[n].data["questions"][turn + 1]}
                    talks[n] = [*talks[n], {"role": "assistant", "content": text.strip()}, question]
        return ["\n".join(said) for said in answers]

    def also_shown(self, item: Item) -> Any:
        return item.data["questions"][1:] or None if not self.drawn(item) else None

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        if isinstance(output, str):
            said, wanted = output.split("\n"), item.data["answers"]
            right = [as_read(a, b) == b for a, b in zip(said, wanted, strict=False)]
            answered = {"score": sum(right) / len(wanted), "wanted": wanted}
            unread = sum(not can_be_read(a, b) for a, b in zip(said, wanted, strict=False))
            return {**answered, "unreadable": unread} if unread else answered
        task, reading = self.tasks[item.key], read(np.asarray(output.convert("RGB")))
        verdict = verdict_on(task, reading)
        if item.data["kind"] == SPREAD:
            return {"score": float(verdict.passed), "bins": bins(reading.scene)}
        found: dict[str, Any] = {"score": float(verdict.passed), "problem": verdict.problem}
        if task.kind == "dense":
            found["questions"] = dense_answers(task, reading.scene)
            found["score"] = sum(found["questions"].values()) / len(found["questions"])
            found["passed"] = verdict.passed
        return found

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.item.data["kind"]].append(row)
        found = {kind: sum(row.score for row in part) / len(part) for kind, part in groups.items()}
        for negatives in NEGATIVES:
            if f"exists, {negatives}" in groups:
                found[f"exists, {negatives}, F1"] = yes_f1(groups[f"exists, {negatives}"])
        for factor in FACTORS if SPREAD in groups else ():
            values = [row.verdict["bins"][factor] for row in groups[SPREAD]]
            found[f"spread, {factor}"] = total_variation(values, sampled()[factor])
        if "dense" in groups:
            found["dense, all right"] = sum(row.verdict["passed"] for row in groups["dense"]) / len(groups["dense"])
        for name, kinds in MEANS.items():
            if all(kind in found for kind in kinds):
                found[name] = sum(found[kind] for kind in kinds) / len(kinds)
        if "drawing" in found and "answering" in found:
            found["overall"] = (found["drawing"] + found["answering"]) / 2
        if compared := self._compared(rows):
            units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in compared]
            found["similarity to renderings"] = float((units[0] * units[1]).sum(1).mean())
        return found

    def parts_of(self, score: str) -> tuple[str, ...]:
        return tuple(itertools.chain(*MEANS.values())) if score == "overall" else MEANS.get(score, ())

    def part(self, item: Item) -> str:
        return str(item.data["kind"])

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            kind = row.item.data["kind"]
            means = [name for name, kinds in MEANS.items() if kind in kinds]
            for name in (kind, *means, *(["overall"] if means else [])):
                groups[name].append(row)
        found = {name: over(own, whole=1) for name, own in groups.items()}
        asked = [name for name in groups if name.startswith("exists, ")]
        found |= {f"{name}, F1": over(groups[name]) for name in asked}
        if "dense" in groups:
            found["dense, all right"] = over(groups["dense"], lambda row: row.verdict["passed"], whole=1)
        if SPREAD in groups:
            found |= {f"spread, {factor}": over(groups[SPREAD], distance=True) for factor in FACTORS}
        drawn = over(self._pictures(rows))
        return {**found, "similarity to renderings": drawn, "Frechet distance to renderings": drawn}

    def scores_of_all(self, rows: Sequence[Row]) -> dict[str, float]:
        compared = self._compared(rows)
        return {"Frechet distance to renderings": frechet_distance(*compared)} if compared else {}

    def _compared(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return features of generated pictures and renderings of their prompts, or None if they are not compared."""
        pictures = self._pictures(rows)
        if not self.settings.features or len(pictures) < 2:
            return None
        return self._features.of(pictures, lambda row: self.out / row.output), self._features.of(pictures, None)

    def _pictures(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of the compared pictures, which are all except those of open prompts."""
        return [row for row in rows if self.drawn(row.item) and row.item.data["kind"] != SPREAD]
