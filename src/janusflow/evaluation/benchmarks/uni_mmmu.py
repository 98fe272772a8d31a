"""The code task of Uni-MMMU (github.com/Vchitect/Uni-MMMU): read SVG code, describe what it shows, and generate it.

The model first writes the description, which is part of the picture's prompt. A judge compares both with the rendered
code: shapes and colors from 0 to 5, positions from 0 to 5, and whether the words match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.data import find_file, read_text
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.files import loads, write_text
from janusflow.processing.images import load_image

TASKS = ("code", "math", "jigsaw", "science", "maze", "sliding")
DECODER = json.JSONDecoder()
TOP = 5  # highest value of a picture's scores
PICTURE, TEXT = "model_image_01.png", "model_text.txt"
SUMMARY = "<RENDER_SUMMARY>{}</RENDER_SUMMARY>"  # the official scorer reads only what is inside
IN_SUMMARY = re.compile(SUMMARY.format(r"\s*(.*?)\s*"), re.IGNORECASE | re.DOTALL)
WANTED = "a JSON object whose samples have id, difficulty, svg and png"

DESCRIBE = """Here is the source of an SVG drawing. Render it in your mind and describe the final picture in at most 60
words: the background, and each shape with its kind, number of sides, color, size and place, in the order of drawing.
Write the description alone.

{svg}"""
DRAW = """Render this SVG source exactly, one flat drawing without any text.

{svg}

It shows: {description}"""
IMAGE_PROMPT = """Two drawings: the first is the reference, rendered from SVG code; the second is a candidate. They hold
circles, polygons of three to six sides, lines and curves, one or several, perhaps overlapping. Compare them and give
two whole numbers from 0 to 5.

shape_color_accuracy: the right shapes, in the right number, of the right kind and number of sides, in the right color
(its family counts, not the exact shade). Shapes or writing that do not belong there cost points. 5: all right; 4: one
or two small faults; 3: one shape missing, added or of another kind; 2: several such; 1: little is right; 0: nothing.

position_accuracy: the right place on the canvas and to each other: order, spacing, alignment, rotation, size against
the canvas, which lies over which. 5: all right; 4: small drifts; 3: some relations broken; 2: many; 1: few hold;
0: none.

Faint noise and edges smoothed otherwise do not count. Reply with JSON alone:
{"shape_color_accuracy": N, "position_accuracy": N, "explanation": "at most 50 words"}"""
TEXT_PROMPT = """The picture is a reference drawing. A candidate describes it in words:

{description}

Do the words match the drawing? All must hold: kinds and numbers of shapes, their color families, and how they are
placed, ordered and overlap, as a person would put it. Reply with JSON alone:
{{"text_semantic_match": 0 or 1, "explanation": "at most 30 words"}}"""


@dataclass(frozen=True)
class UniMmmuSettings:
    """Settings of Uni-MMMU.

    Attributes:
        task: task to run; a model that generates only from text can only do "code".
        judge: model that sees two pictures, as `judges.open_judge` takes it (officially Qwen2.5-VL-72B).
        model_name: name of the outputs' folder.
        max_new_tokens: maximum number of tokens of a description.
        seed: seed of the first case's noise; the next cases have the next seeds.
        threads: number of cases judged at once.
    """

    task: str = "code"
    judge: str = ""
    model_name: str = "janusflow"
    max_new_tokens: Annotated[int, Interval(ge=1, le=2**31)] = 200
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; Uni-MMMU has {', '.join(TASKS)}")
        if self.task != "code":
            raise ValueError(
                f"task {self.task} of Uni-MMMU asks for editing of given pictures, which a model that generates "
                "only from text cannot do; only code can be run"
            )
        if not re.fullmatch(r"[\w.-]+", self.model_name):
            raise ValueError(f"model_name is {self.model_name!r}; expected letters, digits and _.- for a folder's name")


class UniMmmu(Benchmark):
    """The code task of Uni-MMMU.

    "overall" is the mean of the three parts in percent. The parts have their own scales: "shape_color" and "position"
    from 0 to 5, "text" in [0, 1].
    """

    name = "uni_mmmu"
    title = "Uni-MMMU (code)"
    draws = True
    Settings = UniMmmuSettings
    judged_by = "a model that compares pictures"
    source = "svg/metadata.json and the SVG and PNG files that it names, from Uni-MMMU's data on the hub"

    def items(self) -> list[Item]:
        """Return the items in the file's order; keys are the official folders of the cases, prompts the SVG source."""
        try:
            samples = loads(self._file.read_bytes(), finite=False)["samples"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        try:
            return [self._item(number, sample) for number, sample in enumerate(samples, start=1)]
        except (KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(f"{self._file} is damaged or not Uni-MMMU's ({error!r}); expected {WANTED}")

    def _item(self, number: int, sample: Mapping[str, str]) -> Item:
        files = [self._file.parent / sample[part] for part in ("svg", "png")]
        lacking = next((file for file in files if not file.is_file()), None)
        if lacking is not None and not self.limited:
            raise ValueError(f"{lacking}, which {self._file} names, does not exist; expected {self.source}")
        data = {name: sample[name] for name in ("id", "svg", "png")} | {"difficulty": sample.get("difficulty", "")}
        key = f"case_{number:02d}_{sample['id']}"
        code = read_text(files[0]) if files[0].is_file() else ""  # `check_items` rejects this one
        return Item(key, code, seed=self.settings.seed + number - 1, data=data)

    def files(self) -> list[Path]:
        return [self._file]

    def references(self, item: Item) -> list[Path]:
        words = self.out / self._case(item) / TEXT  # also an output
        found = [self._file.parent / item.data[part] for part in ("svg", "png")]
        return [*found, words] if words.is_file() else found

    def place(self, item: Item) -> str:
        return f"{self._case(item)}/{PICTURE}"

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        """Generate descriptions, keep them under `self.out`, and generate the pictures with them in the prompt."""
        asked = [[{"role": "user", "content": DESCRIBE.format(svg=item.prompt)}] for item in items]
        said = [summary(text) for text in model.chat_batch(asked, max_new_tokens=self.settings.max_new_tokens)]
        for item, text in zip(items, said, strict=True):
            write_text(self.out / self._case(item) / TEXT, SUMMARY.format(text))
        drawn = model.generate(
            [DRAW.format(svg=item.prompt, description=text) for item, text in zip(items, said, strict=True)],
            seed=[item.seed for item in items],
            batch_size=len(items),
            progress=False,
            **options,
        )
        return list(drawn)

    def also_shown(self, item: Item) -> Any:
        return None  # its prompts are made from the item's

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return the three scores; "score" is their mean, each scaled to [0, 1]. Empty descriptions do not match."""
        assert isinstance(output, Image.Image)
        reference = load_image(self._file.parent / item.data["png"])
        drawn = self._ask(IMAGE_PROMPT, [reference, output], {"shape_color_accuracy": TOP, "position_accuracy": TOP})
        words, match = self.out / self._case(item) / TEXT, 0
        said = summary(words.read_text(encoding="utf-8")) if words.is_file() else ""
        if said:
            found = self._ask(TEXT_PROMPT.format(description=said), [reference], {"text_semantic_match": 1})
            match = found["text_semantic_match"]
        shapes, places = drawn["shape_color_accuracy"], drawn["position_accuracy"]
        score = (shapes / TOP + places / TOP + match) / 3
        return {"score": score, "shape_color": shapes, "position": places, "text": match, "description": said}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        if not rows:
            return {}
        names = ("shape_color", "position", "text")
        parts = {name: sum(float(row.verdict[name]) for row in rows) / len(rows) for name in names}
        return {**parts, "overall": 100 * sum(row.score for row in rows) / len(rows)}

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        wholes = {"shape_color": 0, "position": 0, "text": 1}
        of = {name: [replace(row, verdict={"score": row.verdict[name]}) for row in rows] for name in wholes}
        return {"overall": over(rows), **{name: over(of[name], whole=whole) for name, whole in wholes.items()}}

    def write_official(self, rows: Sequence[Row]) -> None:
        """Add each case's `result.json`; the rest of `outputs/MODEL/code/CASE` already exists."""
        for row in rows:
            case = self._case(row.item)
            record = {
                "id": row.item.key,
                "status": "ok",
                "case_dir": case,
                "svg": row.item.data["svg"],
                "png": row.item.data["png"],
                "difficulty": row.item.data["difficulty"],
                "text_file": f"{case}/{TEXT}",
                "images_saved": [row.output],
                "errors": [],
            }
            write_text(self.out / case / "result.json", json.dumps(record, indent=2) + "\n")

    def _ask(self, prompt: str, pictures: Sequence[Image.Image], wanted: Mapping[str, int]) -> dict[str, int]:
        found, reply = self.ask_judge(prompt, pictures, read=lambda reply: read_numbers(reply, wanted))
        if found is None:
            raise self.no_verdict(reply)
        return found

    def _case(self, item: Item) -> str:
        return f"outputs/{self.settings.model_name}/code/{item.key}"

    @property
    def _file(self) -> Path:
        return find_file(self, "svg/metadata.json", "data/svg/metadata.json")


def read_numbers(reply: str, wanted: Mapping[str, int]) -> dict[str, int] | None:
    """Return whole numbers from 0 to those of `wanted` from a reply's last JSON object that has them all, or None.

    `3.0`, `"3"` and, for 1 and 0, `true` and `false` are numbers as well.
    """
    for start in reversed([found.start() for found in re.finditer(r"\{", reply)]):
        try:
            found, _ = DECODER.raw_decode(reply, start)
            values = {name: float(found[name]) for name in wanted}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
        if all(value.is_integer() and 0 <= value <= wanted[name] for name, value in values.items()):
            return {name: int(value) for name, value in values.items()}
    return None


def summary(text: str) -> str:
    """Return a description: the part between the official tags, or all of a text without them."""
    tagged = IN_SUMMARY.search(text)
    return (tagged[1] if tagged else text).strip()
