"""GenEval (arXiv 2310.11513): do a picture's objects number, stand and look as its prompt says? The official rules.

A detector gives objects, a colour model names the colours of crops; both come from outside. Coordinates are pixels, x
to the right and y downwards.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9  # of a detection's score; above
MOST = 16  # objects of a class, the surest
SLACK = 0.1  # of both objects' sizes: how much of an offset does not count for a position
CLEAR = 0.5  # of the direction: above it a relation holds


@dataclass(frozen=True)
class Clause:
    """`count` objects of a class, perhaps of a colour, perhaps in a relation to those of an earlier clause.

    Attributes:
        name: the class.
        count: how many at least; of an exclusion, how many are too many.
        color: of all of them.
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


@dataclass(frozen=True)
class Detection:
    """An object found in a picture.

    Attributes:
        name: its class.
        score: in [0, 1].
        box: left, top, right, bottom.
        mask: (height, width) bool, the object's pixels.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


ColorNamer = Callable[[Sequence[Detection]], Sequence[str]]
"""Names the colour of each object of one class, out of `COLORS`."""


def read_tasks(file: Path) -> list[GenEvalTask]:
    """The official `evaluation_metadata.jsonl`.

    Raises:
        ValueError: naming the line and what is expected.
    """
    tasks = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            include, exclude = (tuple(map(_clause, record.get(part, ()))) for part in ("include", "exclude"))
            tasks.append(GenEvalTask(record["tag"], record["prompt"], include, exclude))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = "JSON with tag, prompt and include, clauses of class and count"
            raise ValueError(f"{file}: line {number} is not GenEval's; expected {wanted}") from error
        if tasks[-1].tag not in TAGS:
            raise ValueError(f"{file}: line {number} has tag {tasks[-1].tag!r}; known are {', '.join(TAGS)}")
    return tasks


def _clause(raw: Mapping[str, Any]) -> Clause:
    position = raw.get("position")
    place = None if position is None else (str(position[0]), int(position[1]))
    return Clause(raw["class"], int(raw["count"]), raw.get("color"), place)


def kept(detections: Iterable[Detection], tag: str) -> dict[str, list[Detection]]:
    """The objects that count, by class, the surest first: above the tag's threshold, at most `MOST` of each."""
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    found: dict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda one: -one.score):
        if detection.score > threshold and len(found[detection.name]) < MOST:
            found[detection.name].append(detection)
    return dict(found)


def problem(task: GenEvalTask, detections: Iterable[Detection], name_colors: ColorNamer) -> str:
    """What a picture lacks for its prompt by the official rules; "" if nothing.

    Args:
        task: what is asked for.
        detections: all that the detector found.
        name_colors: is called for clauses with a colour alone.
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


def _lack(clause: Clause, found: list[Detection], groups: list[list[Detection] | None], name_colors: ColorNamer) -> str:
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
    """Where box a lies seen from box b: "left of", "right of", "above", "below", up to two of them.

    The offset of the centres is shortened, each way, by a tenth of both sizes; what is left, by the length of the whole
    offset, is the direction.
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
    """Share of right pictures of each tag, and "overall", the mean of the six.

    Args:
        results: (tag, whether it is right) of each picture.

    Raises:
        ValueError: for an unknown tag. "overall" lacks if a tag has no picture.
    """
    counts: dict[str, list[bool]] = {tag: [] for tag in TAGS}
    for tag, right in results:
        if tag not in counts:
            raise ValueError(f"tag is {tag!r}; known are {', '.join(TAGS)}")
        counts[tag].append(right)
    shares = {tag: sum(right) / len(right) for tag, right in counts.items() if right}
    return {**shares, "overall": sum(shares.values()) / len(TAGS)} if len(shares) == len(TAGS) else shares
