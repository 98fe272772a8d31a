"""Generated pictures and questions of the shipped model's world; needs no data.

The checker judges pictures, and the scenes themselves say which answers are right.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval
from PIL import Image

from janusflow.engine.understanding import Decoding
from janusflow.evaluation.benchmarks.pope import is_readable, says_yes
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row, conversation
from janusflow.evaluation.sample import Sample, over
from janusflow.evaluation.spread import total_variation
from janusflow.evaluation.vision.frechet import frechet_distance
from janusflow.processing.images import load_image
from janusflow.tinyworld.captions import (
    GENEVAL_KINDS,
    HELD_OUT_KINDS,
    KINDS,
    Clause,
    Task,
    noun_phrase,
    place,
    sample_task,
    scene_for,
)
from janusflow.tinyworld.checker import check, read
from janusflow.tinyworld.questions import MAKERS, sample_question, sample_talk
from janusflow.tinyworld.scenes import COLORS, SHAPES, Scene, render
from janusflow.tinyworld.scores import tasks
from janusflow.tinyworld.spread import FACTORS, bins, open_tasks, sampled

if TYPE_CHECKING:
    from janusflow.pipelines.janusflow import JanusFlow

NEGATIVES = ("random", "popular", "adversarial")
ASKED = tuple(kind for kind in MAKERS if kind != "exists")
MEANS = {  # scores that are means over kinds
    "drawing": tuple(GENEVAL_KINDS),
    "answering": (*(f"exists, {one}" for one in NEGATIVES), *ASKED, "talk"),
}
SPREAD = "open prompts"  # kind of the pictures whose diversity is measured
TURNS = 3  # of a talk
MAX_NEW_TOKENS = 96
FEATURES_BATCH = 64


@dataclass(frozen=True)
class WorldSettings:
    """How much is asked.

    Attributes:
        prompts: most of each kind of task, for seen and never seen combinations each.
        images: pictures of each prompt.
        questions: of each kind, and of each set of yes/no questions.
        seed: of prompts, scenes and noise.
        all_kinds: whether never seen combinations and dense prompts are drawn beside the six kinds.
        features: whether pictures are compared with rendered ones in the shipped tower's features.
        spread: pictures of prompts that name a shape only, for the total variation of what they leave open from how
            scenes are sampled; 0 for none. Each of the four factors is read from all of them.
    """

    prompts: Annotated[int, Interval(ge=0, le=100_000)] = 100
    images: Annotated[int, Interval(ge=1, le=1000)] = 4
    questions: Annotated[int, Interval(ge=0, le=100_000)] = 100
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    all_kinds: bool = True
    features: bool = True
    spread: Annotated[int, Interval(ge=0, le=1_000_000)] = 0


class TinyWorld(Benchmark):
    """Six kinds of prompts and dense ones with dependent questions; yes/no questions with three kinds of negatives (as
    POPE has them), and every other kind of question, talks of three turns among them.

    No prompt's scene and no question's scene was ever trained on. "drawing" is the mean over the six kinds with
    combinations that training shows, "answering" the mean over kinds of questions, "overall" the mean of both.
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
        self.scenes: dict[str, Scene] = {}
        self._vectors: dict[tuple[str, bool], np.ndarray] = {}  # by key, and whether of the drawn picture

    def items(self) -> list[Item]:
        return [*self._to_draw(), *self._left_open(), *self._to_answer()]

    def drawn(self, item: Item) -> bool:
        return item.key.startswith("draw/")

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        answering = {name: value for name, value in options.items() if name in Decoding.__dataclass_fields__}
        if self.drawn(items[0]):
            return super().produce(model, items, {k: v for k, v in options.items() if k not in answering})
        answering = {**self.defaults, **answering}
        talks = [conversation(model, item) for item in items]
        answers: list[list[str]] = [[] for _ in items]
        for turn in range(TURNS):
            going = [n for n, item in enumerate(items) if turn < len(item.data["answers"])]
            if not going:
                break
            said = model.chat_batch([talks[n] for n in going], **answering)
            for n, text in zip(going, said, strict=True):
                answers[n].append(" ".join(text.split()))  # a turn is a line
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
        pixels = np.asarray(output.convert("RGB"))
        if item.data["kind"] == SPREAD:
            return {"score": float(check(self.tasks[item.key], pixels).passed), "bins": bins(read(pixels).scene)}
        task = self.tasks[item.key]
        verdict = check(task, pixels)
        found: dict[str, Any] = {"score": float(verdict.passed), "problem": verdict.problem}
        if task.kind == "dense":
            found["questions"] = dense_answers(task, read(pixels).scene)
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

    def samples(self, rows: Sequence[Row]) -> dict[str, Sample]:
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            kind = row.item.data["kind"]
            sides = {"drawing": kind in GENEVAL_KINDS, "answering": not self.drawn(row.item)}
            for name in (
                kind,
                *(side for side, own in sides.items() if own),
                *(["overall"] if any(sides.values()) else []),
            ):
                groups[name].append(row)
        found = {name: over(own, whole=1) for name, own in groups.items()}
        found |= {
            f"exists, {one}, F1": over(groups[f"exists, {one}"]) for one in NEGATIVES if f"exists, {one}" in groups
        }
        if "dense" in groups:
            found["dense, all right"] = over(groups["dense"], lambda row: row.verdict["passed"], whole=1)
        if SPREAD in groups:
            found |= {f"spread, {factor}": over(groups[SPREAD]) for factor in FACTORS}
        drawn = over(self._pictures(rows))
        return {**found, "similarity to renderings": drawn, "Frechet distance to renderings": drawn}

    def scores_of_all(self, rows: Sequence[Row]) -> dict[str, float]:
        compared = self._compared(rows)
        return {"Frechet distance to renderings": frechet_distance(*compared)} if compared else {}

    # --- items ------------------------------------------------------------------------------------------------------

    def _to_draw(self) -> list[Item]:
        options, items = self.settings, []
        for kind, held in product(KINDS, (False, True)):
            if held and kind not in HELD_OUT_KINDS:
                continue
            if not options.all_kinds and (held or kind not in GENEVAL_KINDS):
                continue
            label = f"{kind}, never seen" if held else kind
            for number, task in enumerate(tasks(kind, options.prompts, held_out=held, seed=options.seed)):
                group = f"draw/{kind}{'-held' if held else ''}/{number:04d}"
                for image in range(options.images):
                    key = f"{group}-{image}"
                    self.tasks[key] = task
                    data = {"kind": label, "task": asdict(task)}
                    items.append(
                        Item(
                            key,
                            task.prompt,
                            seed=options.seed + number * options.images + image,
                            group=group,
                            data=data,
                        )
                    )
        return items

    def _left_open(self) -> list[Item]:
        items = []
        for number, task in enumerate(open_tasks(self.settings.spread)):
            key = f"draw/open/{number:05d}"
            self.tasks[key] = task
            items.append(Item(key, task.prompt, seed=self.settings.seed + number, data={"kind": SPREAD}))
        return items

    def _to_answer(self) -> list[Item]:
        count, items = self.settings.questions, []
        scenes = [self._scene(f"exists-{n}") for n in range(count)]
        common = Counter((shape.color, shape.kind) for scene in scenes for shape in scene.shapes)
        for negatives in NEGATIVES:
            for number, scene in enumerate(scenes):
                rng = Random(f"world-{self.settings.seed}-{negatives}-{number}")
                pair, there = asked_pair(rng, scene, negatives, common, wanted=number % 2 == 0)
                text = f"is there {noun_phrase(Clause(pair[1], color=pair[0]))}?"
                key = f"ask/exists-{negatives}/{number:04d}"
                item = self._asked(key, f"exists, {negatives}", scene, [(text, "yes" if there else "no")])
                items.append(replace(item, group=f"ask/exists/{number:04d}"))
        for kind in (*ASKED, "talk"):
            made = 0
            for number in range(50 * count):
                scene = self._scene(f"{kind}-{number}")
                rng = Random(f"world-{self.settings.seed}-ask-{kind}-{number}")
                if kind == "talk":
                    talk = [(q.text, q.answer) for q in sample_talk(rng, scene, TURNS)]
                else:
                    question = sample_question(rng, scene, kind)
                    talk = [] if question is None else [(question.text, question.answer)]
                if talk and made < count:
                    items.append(self._asked(f"ask/{kind}/{made:04d}", kind, scene, talk))
                    made += 1
                if made == count:
                    break
        return items

    def _asked(self, key: str, kind: str, scene: Scene, talk: Sequence[tuple[str, str]]) -> Item:
        questions, answers = ([pair[side] for pair in talk] for side in (0, 1))
        data = {"kind": kind, "questions": questions, "answers": answers}
        return Item(key, questions[0], (Image.fromarray(render(scene)),), system=None, data=data)

    def _scene(self, name: str) -> Scene:
        """A scene of any kind, never seen combinations among them."""
        rng, scene = Random(f"world-{self.settings.seed}-{name}"), None
        while scene is None:
            scene = scene_for(rng, sample_task(rng, rng.choice(KINDS)), training=False)
        return scene

    # --- features ---------------------------------------------------------------------------------------------------

    @cached_property
    def _tower(self) -> JanusFlow:
        from janusflow.pipelines.janusflow import JanusFlow

        return JanusFlow.from_pretrained("tiny", device="cpu", dtype="float32")

    def _compared(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray] | None:
        """Features of the drawn pictures and of renderings of their prompts; None if they are not compared."""
        drawn = self._pictures(rows)
        if not self.settings.features or len(drawn) < 2:
            return None
        return self._features(drawn, True), self._features(drawn, False)

    def _pictures(self, rows: Sequence[Row]) -> list[Row]:
        """Those that are compared: all but the ones of open prompts."""
        return [row for row in rows if self.drawn(row.item) and row.item.data["kind"] != SPREAD]

    def _features(self, rows: Sequence[Row], painted: bool) -> np.ndarray:
        """The shipped tower's mean features (rows, D) of drawn pictures, or of renderings of their prompts."""
        new = list({row.item.key: row for row in rows if (row.item.key, painted) not in self._vectors}.values())
        for first in range(0, len(new), FEATURES_BATCH):
            import torch

            group = new[first : first + FEATURES_BATCH]
            pictures = [load_image(self.out / row.output) if painted else self._rendered(row.item) for row in group]
            pixels = torch.stack([self._tower.processor.preprocess(picture) for picture in pictures])
            with torch.inference_mode():
                features = self._tower.network.understanding_encoder.features(pixels).mean(1).double().numpy()
            self._vectors.update({(row.item.key, painted): one for row, one in zip(group, features, strict=True)})
        return np.stack([self._vectors[row.item.key, painted] for row in rows])

    def _rendered(self, item: Item) -> Image.Image:
        rng, scene = Random(item.key), None
        while scene is None:
            scene = scene_for(rng, self.tasks[item.key], training=False)
        return Image.fromarray(render(scene))


def asked_pair(
    rng: Random, scene: Scene, negatives: str, common: Counter[tuple[str, str]], *, wanted: bool
) -> tuple[tuple[str, str], bool]:
    """A (colour, kind) to ask for, and whether the scene shows it.

    Args:
        rng: the only source of chance.
        scene: what is asked about.
        negatives: of what is not there, "random" takes anything, "popular" what most other scenes show, and
            "adversarial" a colour and a kind that are there, but not together, if there are two shapes.
        common: how often scenes show each pair.
        wanted: whether the answer should be yes.
    """
    present = sorted({(shape.color, shape.kind) for shape in scene.shapes})
    if wanted:
        return rng.choice(present), True
    absent = [pair for pair in product(COLORS, SHAPES) if pair not in present]
    if negatives == "popular":
        most = max(common[pair] for pair in absent)
        absent = [pair for pair in absent if common[pair] == most]
    if negatives == "adversarial":
        swapped = [(a[0], b[1]) for a, b in product(present, present) if (a[0], b[1]) not in present]
        near = [pair for pair in absent if any(pair[0] == c or pair[1] == k for c, k in present)]
        absent = swapped or near
    return rng.choice(absent), False


def dense_answers(task: Task, scene: Scene | None) -> dict[str, bool]:
    """Questions about each clause of a dense prompt, in DPG-Bench's way: what depends on a no is no.

    Is there one of that kind; is one of them of that colour; of that size; in that place; are there as many; and, apart
    from all, is the background right.
    """
    answers: dict[str, bool] = {}
    for number, clause in enumerate(task.clauses, start=1):
        found = [] if scene is None else [shape for shape in scene.shapes if shape.kind == clause.kind]
        answers[f"{number}: {clause.kind}?"] = bool(found)
        for name, wanted in (("color", clause.color), ("size", clause.size)):
            if wanted:
                found = [shape for shape in found if getattr(shape, name) == wanted]
                answers[f"{number}: {clause.kind} {wanted}?"] = bool(found)
        if clause.region:
            answers[f"{number}: {clause.kind} {place(clause.region)}?"] = any(
                shape.region == clause.region for shape in found
            )
        if clause.count > 1:
            answers[f"{number}: {noun_phrase(clause)}?"] = len(found) == clause.count
    if task.background:
        answers["background?"] = scene is not None and scene.background == task.background
    return answers


def as_read(answer: str, wanted: str) -> str:
    """An answer as it is compared: where yes or no is right, either of them by POPE's rule whatever the case."""
    if wanted not in ("yes", "no") or not answer.strip():
        return answer
    return "yes" if says_yes(answer.lower()) else "no"


def can_be_read(answer: str, wanted: str) -> bool:
    """Whether an answer says anything and, where yes or no is right, either of them."""
    return bool(answer.strip()) and (wanted not in ("yes", "no") or is_readable(answer.lower()))


def yes_f1(rows: Sequence[Row]) -> float:
    """F1 with "yes" as the positive answer."""
    said = [as_read(row.output, "yes") == "yes" for row in rows]
    wanted = [row.item.data["answers"] == ["yes"] for row in rows]
    hits = sum(a and b for a, b in zip(said, wanted, strict=True))
    total = sum(said) + sum(wanted)
    return 2 * hits / total if total else 0.0
