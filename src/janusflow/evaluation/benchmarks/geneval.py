"""GenEval (arXiv 2310.11513): do the number, position and color of objects match the prompt, by the official rules?

A detector (`evaluation/vision/detection.py`) finds objects, and CLIP (`evaluation/vision/clip.py`) names the colors of
crops. Coordinates are pixels, x to the right and y downwards.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.data import find_file, read_text
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, by_part, over
from janusflow.evaluation.vision.clip import Clip, ColorNamer
from janusflow.evaluation.vision.detection import THRESHOLD, Detection, Detector
from janusflow.files import loads, write_text

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COUNTING_THRESHOLD = 0.9  # in place of THRESHOLD: a detection's score must be above it
MOST = 16  # objects of a class, those with the highest scores
SLACK = 0.1  # share of both objects' sizes by which an offset does not count for a position
CLEAR = 0.5  # a relation holds if the direction is above it


@dataclass(frozen=True)
class Clause:
    """`count` objects of a class, perhaps with a color, perhaps in a relation to those of an earlier clause.

    Attributes:
        name: name of the class.
        count: minimum number of objects; for an exclusion, the number that is too many.
        color: color of all of them.
        position: (relation, index of the earlier clause), which must hold for every pair.
    """

    name: str
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class GenEvalTask:
    """One prompt and what its pictures must show."""

    tag: str
    prompt: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()


NameColors = Callable[[Sequence[Detection]], Sequence[str]]
"""Function that names the color of each object of one class, from `clip.COLORS`."""


def read_records(file: Path) -> list[tuple[dict[str, Any], GenEvalTask]]:
    """Read the official `evaluation_metadata.jsonl`: each line as JSON and as a task.

    Raises:
        ValueError: for an invalid line; the message names it and what is expected.
    """
    tasks = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            record = loads(line, finite=False)
            tasks.append((record, as_task(record)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = "JSON with tag, prompt and include, clauses of class and count, placed relative to earlier ones"
            raise ValueError(f"{file}: line {number} is not GenEval's; expected {wanted}") from error
        if record["tag"] not in TAGS:
            raise ValueError(f"{file}: line {number} has tag {record['tag']!r}; choose from {', '.join(TAGS)}")
    return tasks


def as_task(record: Mapping[str, Any]) -> GenEvalTask:
    """Return a line of the file as a task.

    Raises:
        ValueError: if a position refers to a clause that does not come before it.
    """
    include, exclude = (tuple(map(_clause, record.get(part, ()))) for part in ("include", "exclude"))
    for place, clause in enumerate(include):
        if clause.position is not None and not 0 <= clause.position[1] < place:
            raise ValueError(f"clause {place} is placed relative to clause {clause.position[1]}")
    return GenEvalTask(record["tag"], record["prompt"], include, exclude)


def _clause(raw: Mapping[str, Any]) -> Clause:
    position = raw.get("position")
    place = None if position is None else (str(position[0]), int(position[1]))
    return Clause(raw["class"], int(raw["count"]), raw.get("color"), place)


def kept(detections: Iterable[Detection], tag: str) -> dict[str, list[Detection]]:
    """Return the objects that count, by class, highest score first: above the tag's threshold, at most `MOST` each."""
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    found: dict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda one: -one.score):
        if detection.score > threshold and len(found[detection.name]) < MOST:
            found[detection.name].append(detection)
    return dict(found)


def problem(task: GenEvalTask, detections: Iterable[Detection], name_colors: NameColors) -> str:
    """Return what a picture lacks for its prompt by the official rules; "" for nothing.

    Args:
        task: what the prompt asks for.
        detections: all objects that the detector found.
        name_colors: function that is only called for clauses with a color.
    """
    objects, missing = kept(detections, task.tag), []
    groups: list[list[Detection] | None] = []
    for clause in task.include:
        found = objects.get(clause.name, [])[: clause.count]
        lack = _lack(clause, found, groups, name_colors)
        missing += [lack] if lack else []
        groups.append(None if lack else found)
    for clause in task.exclude:
        count = len(objects.get(clause.name, []))
        if count >= clause.count:
            missing.append(f"expected {clause.name} < {clause.count}, found {count}")
    return "; ".join(missing)


def _lack(clause: Clause, found: list[Detection], groups: list[list[Detection] | None], name_colors: NameColors) -> str:
    if len(found) < clause.count:
        return f"expected {clause.name} >= {clause.count}, found {len(found)}"
    if clause.color is not None:
        colors = list(name_colors(found))
        if colors.count(clause.color) < clause.count:
            return f"expected {clause.color} {clause.name}, found {', '.join(colors)}"
    if clause.position is not None:
        relation, index = clause.position
        target = groups[index]
        if target is None:
            return f"no target for {clause.name} to be {relation}"
        for one in found:
            for other in target:
                held = relations(one.box, other.box)
                if relation not in held:
                    stands = " and ".join(sorted(held)) or "nowhere clear"
                    return f"expected {clause.name} {relation} target, found {stands}"
    return ""


def relations(a: Sequence[float], b: Sequence[float]) -> set[str]:
    """Return where box a is relative to box b: "left of", "right of", "above", "below", up to two of them.

    On each axis, a tenth of both sizes is subtracted from the offset between the centers (not below 0). The rest,
    divided by the length of the full offset, is the direction.
    """
    offset = [(a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2 for axis in (0, 1)]
    sizes = [abs(a[axis + 2] - a[axis]) + abs(b[axis + 2] - b[axis]) for axis in (0, 1)]
    left = [math.copysign(max(abs(o) - SLACK * size, 0), o) for o, size in zip(offset, sizes, strict=True)]
    if max(map(abs, left)) < 1e-3:
        return set()
    dx, dy = (part / math.hypot(*offset) for part in left)
    held = {"left of"} if dx < -CLEAR else {"right of"} if dx > CLEAR else set()
    return held | ({"above"} if dy < -CLEAR else {"below"} if dy > CLEAR else set())


def overall(results: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Return the share of right pictures of each tag, and "overall", the mean of the six.

    "overall" is left out if a tag has no picture.

    Args:
        results: (tag, whether it is right) for each picture.

    Raises:
        ValueError: for an unknown tag.
    """
    counts: dict[str, list[bool]] = {tag: [] for tag in TAGS}
    for tag, right in results:
        if tag not in counts:
            raise ValueError(f"tag is {tag!r}; choose from {', '.join(TAGS)}")
        counts[tag].append(right)
    shares = {tag: sum(right) / len(right) for tag, right in counts.items() if right}
    return {**shares, "overall": sum(shares.values()) / len(TAGS)} if len(shares) == len(TAGS) else shares


# --- the benchmark --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GenEvalSettings:
    """Settings of GenEval.

    Attributes:
        images: number of pictures per prompt.
        seed: seed of each prompt's first picture; the next pictures have the next seeds.
        detector: Mask2Former for COCO's instances, as a folder or a name on the hub.
        color_model: CLIP model, as a folder or a name on the hub.
        device: device of both models.
    """

    images: Annotated[int, Interval(ge=1, le=1000)] = 4
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    detector: str = "facebook/mask2former-swin-small-coco-instance"
    color_model: str = "openai/clip-vit-large-patch14"
    device: str = "auto"


def _published(*scores: float) -> dict[str, float]:
    return dict(zip((*TAGS, "overall"), scores, strict=True))


class GenEval(Benchmark):
    """GenEval: 553 prompts with four pictures each.

    Scores are the six kinds and their mean, and the shares of right pictures ("images") and of prompts with any right
    picture ("prompts"). Detector and CLIP are transformers' ports, not the official scorer's builds: compare with
    published figures only after calibrating with that scorer on the run's folder, which `write_official` completes.
    """

    name = "geneval"
    title = "GenEval"
    whole_groups = True
    caveat = (
        "Detector and CLIP are transformers' models, other weights than the official scorer's: run that on this folder "
        "before comparing decimals."
    )
    draws = True
    Settings = GenEvalSettings
    judging = (*Benchmark.judging, "detector", "color_model")
    judging_models = ("detector", "color_model")
    source = "evaluation_metadata.jsonl and object_names.txt from the folder prompts/ of github.com/djghosh13/geneval"
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "JanusFlow 384 (paper)": _published(0.97, 0.59, 0.45, 0.83, 0.53, 0.42, 0.63),
        "JanusFlow 256 (paper)": _published(0.98, 0.73, 0.54, 0.83, 0.63, 0.53, 0.70),
        "Janus (paper)": _published(0.97, 0.68, 0.30, 0.84, 0.46, 0.42, 0.61),
        "SDXL (paper)": {"overall": 0.55},
        "DALL-E 3 (paper)": {"overall": 0.67},
        "JanusFlow 384 (TorchUMM)": {"overall": 0.4999},
    }

    def items(self) -> list[Item]:
        """Return the pictures of each prompt, one prompt after another."""
        found = []
        for index, (record, task) in enumerate(read_records(self._file("evaluation_metadata.jsonl"))):
            group = f"{index:05d}"
            for image in range(self.settings.images):
                key, seed = f"{group}/samples/{image:04d}", self.settings.seed + image
                found.append(Item(key, task.prompt, seed=seed, group=group, data=record))
        return found

    def files(self) -> list[Path]:
        return [self._file("evaluation_metadata.jsonl"), self._file("object_names.txt")]

    def references(self, item: Item) -> list[Path]:
        return [self._file("object_names.txt")]

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return whether the picture is right, what it lacks, and what was detected."""
        assert isinstance(output, Image.Image)
        found = self.detector(output)
        task = as_task(item.data)
        lack = problem(task, found, partial(self.color_namer, output))
        seen = [
            {"name": one.name, "score": round(one.score, 4), "box": list(one.box)}
            for objects in kept(found, task.tag).values()
            for one in objects
        ]
        return {"score": int(not lack), "tag": task.tag, "problem": lack, "objects": seen}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        if not rows:
            return {}
        right = {row.item.group for row in rows if row.score}
        return {
            **overall((row.item.data["tag"], bool(row.score)) for row in rows),
            "images": sum(row.score for row in rows) / len(rows),
            "prompts": sum(row.item.group in right for row in rows) / len(rows),
        }

    def part(self, item: Item) -> str:
        return str(item.data["tag"])

    def parts_of(self, score: str) -> tuple[str, ...]:
        return TAGS if score == "overall" else (score,) if score in TAGS else ()

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        right = {row.item.group for row in rows if row.score}
        groups = list(dict.fromkeys(row.item.group for row in rows))
        prompts = ScoreSample([float(group in right) for group in groups], groups, 1)
        whole = {name: over(rows, whole=1) for name in ("overall", "images")}
        return {**by_part(rows, lambda row: [row.item.data["tag"]], whole=1), **whole, "prompts": prompts}

    def write_official(self, rows: Sequence[Row]) -> None:
        """Add each prompt's `metadata.jsonl`; the pictures are already where the official scorer looks, in `images`."""
        for row in rows:
            write_text(self.out / "images" / row.item.group / "metadata.jsonl", json.dumps(dict(row.item.data)) + "\n")

    @cached_property
    def detector(self) -> Callable[[Image.Image], Sequence[Detection]]:
        """The detector of objects, opened on first use."""
        names = read_text(self._file("object_names.txt")).splitlines()
        known = [name.strip() for name in names if name.strip()]
        return Detector.open(self.settings.detector, known, device=self.settings.device)

    @cached_property
    def color_namer(self) -> Callable[[Image.Image, Sequence[Detection]], Sequence[str]]:
        """The model that names colors, opened on first use."""
        return ColorNamer(Clip.open(self.settings.color_model, device=self.settings.device))

    def _file(self, name: str) -> Path:
        return find_file(self, name, f"prompts/{name}")
