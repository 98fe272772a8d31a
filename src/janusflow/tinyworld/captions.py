"""Sample tasks, each a prompt with a specification of its picture: GenEval's six kinds and dense captions.

`sample_task` samples a task. `scene_for` then samples a scene that shows exactly the task; the rest is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from janusflow.tinyworld.scenes import (
    BACKGROUNDS,
    COLORS,
    MAX_SHAPES,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Wish,
    held_out_attribution,
    held_out_pair,
    held_out_relation,
    sample_scene,
)

GENEVAL_KINDS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
KINDS = (*GENEVAL_KINDS, "dense")
HELD_OUT_KINDS = ("two_object", "position", "color_attr")  # kinds with combinations that training never shows
NUMBERS = ("zero", "one", "two", "three", "four", "five")
REGIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
RELATION_WORDS = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
FRAMES = (
    "{}",
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "draw {}",
    "paint {}",
    "show me {}",
)
BACKGROUND_WORDS = ("{} on a {} background", "{} on {}", "{} in front of a {} background")
LINKS = ("{} and {}", "{} and {}", "{} with {}", "{} together with {}")


@dataclass(frozen=True)
class Clause:
    """`count` shapes of one kind; a color, size or region of None is left open."""

    kind: str
    count: int = 1
    color: str | None = None
    size: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Task:
    """A prompt and the exact content of its picture, which has no other shapes.

    Attributes:
        kind: one of `KINDS`.
        prompt: the sentence.
        clauses: the shapes.
        relation: position of the first clause's shape relative to the second's, or None.
        background: name of the background, or None if the prompt does not name it.
    """

    kind: str
    prompt: str
    clauses: tuple[Clause, ...]
    relation: str | None = None
    background: str | None = None


def sample_task(rng: Random, kind: str, *, held_out: bool = False) -> Task:
    """Sample a task.

    Args:
        rng: the only source of randomness.
        kind: one of `KINDS`.
        held_out: whether to sample a combination that training never shows (only for `HELD_OUT_KINDS`), instead of one
            that it shows.

    Raises:
        ValueError: if the kind is unknown, or `held_out` is set for a kind without held-out combinations.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected {', '.join(KINDS)}")
    if held_out and kind not in HELD_OUT_KINDS:
        raise ValueError(f"kind {kind!r} has no held-out combinations; only {', '.join(HELD_OUT_KINDS)} have")
    if kind == "dense":
        return _dense(rng)
    clauses, relation = _clauses(rng, kind, held_out)
    words = [noun_phrase(clause) for clause in clauses]
    if relation:
        text = f"{words[0]} {rng.choice(RELATION_WORDS[relation])} {words[1]}"
    else:
        text = words[0] if len(words) == 1 else rng.choice(LINKS).format(*words)
    background = rng.choice(tuple(BACKGROUNDS)) if rng.random() < 0.15 else None
    return _framed(rng, Task(kind, text, clauses, relation, background))


def scene_for(rng: Random, task: Task, *, training: bool = True) -> Scene | None:
    """Sample a scene that shows exactly the task, or return None if no place was found or training may not show it."""
    wishes = []
    same = rng.choice(tuple(COLORS)) if rng.random() < 0.6 else None  # common color of shapes that are only counted
    for index, clause in enumerate(task.clauses):
        color = clause.color or (same if clause.count > 1 else None)
        wish = Wish(clause.kind, color, clause.size, clause.region)
        if task.relation and index == 1:
            wish = replace(wish, relation=(OPPOSITE[task.relation], 0))
        wishes += [wish] * clause.count
    return sample_scene(rng, wishes, background=task.background, training=training)


def sample_pair(rng: Random, kind: str) -> tuple[Task, Scene]:
    """Sample a training pair: a task of the given kind and a matching scene that training may show."""
    while True:
        task = sample_task(rng, kind)
        scene = scene_for(rng, task)
        if scene is not None:
            return task, scene


def describe(scene: Scene) -> str:
    """Describe the whole scene in a fixed wording and in reading order; the answer to "describe the picture"."""
    shapes = sorted(scene.shapes, key=lambda s: (REGIONS.index(s.region), s.x, s.y))
    phrases = [f"{noun_phrase(Clause(s.kind, 1, s.color, s.size))} {place(s.region)}" for s in shapes]
    return f"{listed(phrases)} on a {scene.background} background"


def noun_phrase(clause: Clause) -> str:
    """Return a clause as a noun phrase, such as "a red circle" or "three small stars"."""
    words = " ".join(word for word in (clause.size, clause.color, clause.kind) if word)
    if clause.count == 1:
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    return f"{NUMBERS[clause.count]} {words}{'es' if clause.kind == 'cross' else 's'}"


def place(region: str) -> str:
    """Return a region as a phrase, such as "in the center", "on the left" or "at the top right"."""
    if region == "center":
        return "in the center"
    return f"on the {region}" if region in ("left", "right") else f"at the {region}"


def listed(phrases: list[str]) -> str:
    """Join phrases to "a", "a and b", or "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _clauses(rng: Random, kind: str, held_out: bool) -> tuple[tuple[Clause, ...], str | None]:
    if kind == "single_object":
        return (Clause(rng.choice(SHAPES)),), None
    if kind == "colors":
        return (Clause(rng.choice(SHAPES), color=rng.choice(tuple(COLORS))),), None
    if kind == "counting":
        color = rng.choice(tuple(COLORS)) if rng.random() < 0.25 else None
        return (Clause(rng.choice(SHAPES), rng.randint(2, 4), color),), None
    while True:
        first, second = rng.sample(SHAPES, 2)
        colors = rng.sample(tuple(COLORS), 2)
        relation = rng.choice(RELATIONS)
        if kind == "two_object" and held_out_pair(first, second) == held_out:
            return (Clause(first), Clause(second)), None
        if held_out_pair(first, second):
            continue
        attribution = held_out_attribution((colors[0], first), (colors[1], second))
        if kind == "color_attr" and attribution == held_out:
            return (Clause(first, color=colors[0]), Clause(second, color=colors[1])), None
        if kind == "position" and held_out_relation(first, relation, second) == held_out:
            if rng.random() < 0.6:
                return (Clause(first), Clause(second)), relation
            if not attribution:
                return (Clause(first, color=colors[0]), Clause(second, color=colors[1])), relation


def _dense(rng: Random) -> Task:
    """Sample up to four clauses with optional colors, sizes and places; those that repeat a shape are dropped."""
    clauses: list[Clause] = []
    regions = rng.sample(REGIONS, 4)
    for region in regions[: rng.randint(2, 4)]:
        free = MAX_SHAPES - sum(clause.count for clause in clauses)
        if free < 1:
            break
        count = 2 if free > 2 and rng.random() < 0.15 else 1
        clause = Clause(
            rng.choice(SHAPES),
            count,
            rng.choice(tuple(COLORS)) if rng.random() < 0.9 else None,
            rng.choice(tuple(SIZES)) if rng.random() < 0.4 else None,
            region if count == 1 and rng.random() < 0.6 else None,
        )
        if all((clause.kind, clause.color) != (other.kind, other.color) for other in clauses):
            clauses.append(clause)
    phrases = [noun_phrase(c) + (f" {place(c.region)}" if c.region else "") for c in clauses]
    background = rng.choice(tuple(BACKGROUNDS)) if rng.random() < 0.5 else None
    return _framed(rng, Task("dense", listed(phrases), tuple(clauses), None, background))


def _framed(rng: Random, task: Task) -> Task:
    """Put the task's sentence into one of many wordings."""
    text = task.prompt
    if task.background:
        words = rng.choice(BACKGROUND_WORDS) if task.kind != "dense" else BACKGROUND_WORDS[0]
        text = words.format(text, task.background)
    text = rng.choice(FRAMES).format(text)
    if rng.random() < 0.15:
        text = text[0].upper() + text[1:] + "."
    return replace(task, prompt=text)
