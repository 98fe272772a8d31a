"""Judge answers and dense prompts of the tiny world; `benchmark.py` turns the verdicts into scores."""

from __future__ import annotations

from collections.abc import Sequence

from janusflow.evaluation.benchmarks.pope import is_readable, says_yes
from janusflow.evaluation.protocol import Row
from janusflow.tinyworld.captions import Clause, Task, noun_phrase, place
from janusflow.tinyworld.scenes import Scene, Shape


def dense_answers(task: Task, scene: Scene | None) -> dict[str, bool]:
    """Answer questions about each clause of a dense prompt, as in DPG-Bench.

    The questions for a clause are whether the kind is there, in that color, in that size, at that place, and in that
    number. One more question asks for the background. A question that depends on a "no" is answered "no".
    """
    answers: dict[str, bool] = {}
    for number, clause in enumerate(task.clauses, start=1):
        found = [] if scene is None else _shapes_of(clause, task, scene)
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


def _shapes_of(clause: Clause, task: Task, scene: Scene) -> list[Shape]:
    """Return a scene's shapes of a clause's kind.

    For a clause without a color, shapes that clauses with a color ask for are left out: the one star of a picture is
    not both "a red star" and "a star".
    """
    found = [shape for shape in scene.shapes if shape.kind == clause.kind]
    if clause.color is None:
        for other in (one for one in task.clauses if one.kind == clause.kind and one.color):
            for shape in [shape for shape in found if shape.color == other.color][: other.count]:
                found.remove(shape)
    return found


def as_read(answer: str, wanted: str) -> str:
    """Return an answer in the form that is compared: if yes or no is right, POPE's rule decides, ignoring case."""
    if wanted not in ("yes", "no") or not answer.strip():
        return answer
    return "yes" if says_yes(answer.lower()) else "no"


def can_be_read(answer: str, wanted: str) -> bool:
    """Return whether an answer is not empty and, if yes or no is right, contains one of them."""
    return bool(answer.strip()) and (wanted not in ("yes", "no") or is_readable(answer.lower()))


def yes_f1(rows: Sequence[Row]) -> float:
    """Return the F1 score with "yes" as the positive answer."""
    said = [as_read(row.output, "yes") == "yes" for row in rows]
    wanted = [row.item.data["answers"] == ["yes"] for row in rows]
    hits = sum(a and b for a, b in zip(said, wanted, strict=True))
    total = sum(said) + sum(wanted)
    return 2 * hits / total if total else 0.0
