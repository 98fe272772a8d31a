"""Measure diversity: compare what prompts leave open with the distribution that scenes are sampled from.

Prompts name only one shape ("a star"), so its color, place and size and the background are free. The bins are the ten
colors, the nine parts of the picture, the three sizes and the four backgrounds. `OTHER` is the bin of pictures that
cannot be read, show another number of shapes, or have a value that no scene has.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import product

from janusflow.evaluation.spread import OTHER
from janusflow.tinyworld.captions import Clause, Task, noun_phrase
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, MARGIN, SHAPES, SIZES, UNITS, Scene, Shape

FACTORS = ("color", "place", "size", "background")


def open_tasks(count: int) -> list[Task]:
    """Return prompts that leave every factor open, with the same number of each shape."""
    clauses = [Clause(SHAPES[number % len(SHAPES)]) for number in range(count)]
    return [Task("single_object", noun_phrase(clause), (clause,)) for clause in clauses]


def bins(scene: Scene | None) -> dict[str, str]:
    """Return the bin of each factor.

    Args:
        scene: scene as read by the checker; None if it could not be read.
    """
    if scene is None or len(scene.shapes) != 1:
        return dict.fromkeys(FACTORS, OTHER)
    (shape,) = scene.shapes
    found = {"color": shape.color, "place": shape.region, "size": shape.size, "background": scene.background}
    return {factor: value if value in sampled()[factor] else OTHER for factor, value in found.items()}


@cache
def sampled() -> dict[str, dict[str, float]]:
    """Return the exact distribution of one shape in `sample_scene` over the bins of each factor.

    Color, size, radius and background are uniform. The center is uniform over all places where the shape fits, so
    larger shapes are nearer to the middle.
    """
    places: dict[str, float] = defaultdict(float)
    for radii in SIZES.values():
        for radius in radii:
            inside = range(radius + MARGIN, UNITS - radius - MARGIN + 1)
            share = 1 / len(SIZES) / len(radii) / len(inside) ** 2
            for x, y in product(inside, inside):
                places[Shape(SHAPES[0], "red", x, y, radius, (0, 0, 0)).region] += share
    return {
        "color": dict.fromkeys(COLORS, 1 / len(COLORS)),
        "place": dict(places),
        "size": dict.fromkeys(SIZES, 1 / len(SIZES)),
        "background": dict.fromkeys(BACKGROUNDS, 1 / len(BACKGROUNDS)),
    }
