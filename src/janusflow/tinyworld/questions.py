"""Sample questions about a scene, with exact answers; talks of several turns; and facts without a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from janusflow.tinyworld.captions import NUMBERS, Clause, describe, noun_phrase
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, OPPOSITE, RELATIONS, SHAPES, UNITS, Scene, Shape, relations

CORNERS = {"circle": 0, "triangle": 3, "square": 4, "diamond": 4, "star": 10, "cross": 12}
MARGIN = 2  # no question asks for the place of a shape nearer than this to the border of a ninth of the picture


@dataclass(frozen=True)
class Question:
    """A question, its right answer, and its kind (a key of `MAKERS`)."""

    kind: str
    text: str
    answer: str


def sample_question(rng: Random, scene: Scene, kind: str | None = None) -> Question | None:
    """Sample a question about a scene with exactly one right answer.

    Args:
        rng: the only source of randomness.
        scene: scene that the question is about.
        kind: a key of `MAKERS`, or None for any.

    Returns:
        The question, or None if the scene allows no question of that kind.
    """
    if kind is not None:
        return MAKERS[kind](rng, scene)
    while True:
        question = MAKERS[rng.choice(tuple(MAKERS))](rng, scene)
        if question is not None:
            return question


def sample_talk(rng: Random, scene: Scene, turns: int) -> list[Question]:
    """Sample different questions about one scene."""
    asked: dict[str, Question] = {}
    while len(asked) < turns:
        question = sample_question(rng, scene)
        assert question is not None
        asked.setdefault(question.text, question)
    return list(asked.values())


def sample_fact(rng: Random) -> Question:
    """Sample a question without a picture: corners of shapes, opposites, small sums, colors and shapes."""
    choice = rng.randrange(5)
    if choice == 0:
        kind = rng.choice(SHAPES)
        corners = {0: "zero", 3: "three", 4: "four", 10: "ten", 12: "twelve"}[CORNERS[kind]]
        return Question("fact", f"how many corners does a {kind} have?", corners)
    if choice == 1:
        relation = rng.choice(RELATIONS)
        return Question("fact", f"what is the opposite of {relation}?", OPPOSITE[relation])
    if choice == 2:
        a, b = rng.randint(0, 5), rng.randint(0, 5)
        a, b = (a, b) if a + b <= 5 else (a // 2, b // 2)
        return Question("fact", f"what is {NUMBERS[a]} plus {NUMBERS[b]}?", NUMBERS[a + b])
    word = rng.choice((*SHAPES, *COLORS))
    asked = rng.choice(("color", "shape"))
    return Question("fact", f"is {word} a {asked}?", _yes((word in COLORS) == (asked == "color")))


# --- the kinds ------------------------------------------------------------------------------------------------------


def _color(rng: Random, scene: Scene) -> Question | None:
    shape = _unique(rng, scene, lambda s: s.kind)
    if shape is None:
        return None
    text = rng.choice(("what color is the {}?", "which color does the {} have?", "what is the color of the {}?"))
    return Question("color", text.format(shape.kind), shape.color)


def _shape(rng: Random, scene: Scene) -> Question | None:
    shape = _unique(rng, scene, lambda s: s.color)
    if shape is None:
        return None
    text = rng.choice(("what shape is {}?", "which shape is {}?", "what is the {} shape?"))
    return Question("shape", text.format(shape.color), shape.kind)


def _count(rng: Random, scene: Scene) -> Question:
    if rng.random() < 0.35:
        return Question("count", "how many shapes are there?", NUMBERS[len(scene.shapes)])
    kinds = Counter(shape.kind for shape in scene.shapes)
    kind = rng.choice(SHAPES) if rng.random() < 0.25 else rng.choice(tuple(kinds))
    plural = noun_phrase(Clause(kind, 2)).split(" ", 1)[1]
    text = rng.choice(("how many {} are there?", "how many {} do you see?", "count the {}."))
    return Question("count", text.format(plural), NUMBERS[kinds[kind]])


def _place(rng: Random, scene: Scene) -> Question | None:
    shape = _unique(rng, scene, lambda s: s.kind)
    if shape is None or _near_border(shape):
        return None
    text = rng.choice(("where is the {}?", "in which part of the picture is the {}?"))
    return Question("place", text.format(shape.kind), shape.region)


def _exists(rng: Random, scene: Scene) -> Question:
    """Ask whether a shape is there; half of the answers are "no".

    If a color and a shape are present but not together, at least half of the questions answered "no" name such a pair.
    The others name any absent pair, more often one whose color or shape is present.
    """
    present = {(shape.color, shape.kind) for shape in scene.shapes}
    if rng.random() < 0.5:
        color, kind = rng.choice(sorted(present))
    else:
        swapped = sorted({(c, k) for c, _ in present for _, k in present} - present)
        absent = [(c, k) for c in COLORS for k in SHAPES if (c, k) not in present]
        near = [(c, k) for c, k in absent if any(c == a or k == b for a, b in present)]
        color, kind = rng.choice(swapped if swapped and rng.random() < 0.5 else near if rng.random() < 0.6 else absent)
    phrase = noun_phrase(Clause(kind, 1, color))
    text = rng.choice(("is there {}?", "is there {} in the picture?", "do you see {}?"))
    return Question("exists", text.format(phrase), _yes((color, kind) in present))


def _relation(rng: Random, scene: Scene) -> Question | None:
    kinds = Counter(shape.kind for shape in scene.shapes)
    unique = [shape for shape in scene.shapes if kinds[shape.kind] == 1]
    if len(unique) < 2:
        return None
    a, b = rng.sample(unique, 2)
    found = sorted(relations(a, b))
    if len(found) != 1:
        return None
    asked = found[0] if rng.random() < 0.5 else OPPOSITE[found[0]]
    return Question("relation", f"is the {a.kind} {asked} the {b.kind}?", _yes(asked == found[0]))


def _size(rng: Random, scene: Scene) -> Question | None:
    shape = _unique(rng, scene, lambda s: s.kind)
    return None if shape is None else Question("size", f"what size is the {shape.kind}?", shape.size)


def _background(rng: Random, scene: Scene) -> Question:
    if rng.random() < 0.5:
        return Question("background", "what color is the background?", scene.background)
    asked = scene.background if rng.random() < 0.5 else rng.choice(tuple(BACKGROUNDS))
    return Question("background", f"is the background {asked}?", _yes(asked == scene.background))


def _describe(rng: Random, scene: Scene) -> Question:
    text = rng.choice(("describe the picture.", "what do you see?", "describe this image."))
    return Question("describe", text, describe(scene))


MAKERS: dict[str, Callable[[Random, Scene], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "place": _place,
    "exists": _exists,
    "relation": _relation,
    "size": _size,
    "background": _background,
    "describe": _describe,
}


def _unique(rng: Random, scene: Scene, feature: Callable[[Shape], str]) -> Shape | None:
    """Choose a shape whose feature no other shape has."""
    counts = Counter(feature(shape) for shape in scene.shapes)
    unique = [shape for shape in scene.shapes if counts[feature(shape)] == 1]
    return rng.choice(unique) if unique else None


def _near_border(shape: Shape) -> bool:
    borders = (UNITS / 3, 2 * UNITS / 3)
    return any(abs(value - border) < MARGIN for value in (shape.x, shape.y) for border in borders)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
