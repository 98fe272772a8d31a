"""Sample and render scenes of colored shapes, the content of the tiny world.

At any pixel size, coordinates and radii are in 64ths of the picture's side; x points right and y points down.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random

import numpy as np

UNITS = 64
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
RESERVED_SHAPES = ("heart", "ring")  # never in the data of the recipes; fine-tuning teaches them
COLORS = {  # as in GenEval
    "red": (222, 40, 44),
    "orange": (245, 136, 24),
    "yellow": (250, 222, 50),
    "green": (40, 150, 66),
    "blue": (40, 84, 220),
    "purple": (132, 56, 184),
    "pink": (252, 148, 196),
    "brown": (122, 72, 36),
    "black": (16, 16, 18),
    "white": (252, 252, 252),
}
RESERVED_COLORS = {"cyan": (40, 200, 220)}  # never in the data of the recipes
PALETTE = COLORS | RESERVED_COLORS
BACKGROUNDS = {"gray": (150, 152, 156), "beige": (224, 204, 166), "mint": (164, 214, 190), "slate": (78, 92, 110)}
SIZES = {"small": (6, 7), "medium": (9, 10), "large": (12, 13)}  # radii
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MAX_SHAPES = 5
GAP = 3  # free units between two shapes
MARGIN = 3  # free units between a shape and the picture's edge
TINT = 4  # colors vary by at most this much per channel
PLACE_TRIES = 60
SUPERSAMPLING = 8


@dataclass(frozen=True)
class Shape:
    """One shape of a scene.

    Attributes:
        kind: a name from `SHAPES` or `RESERVED_SHAPES`.
        color: a name from `PALETTE`.
        x, y: center of the shape.
        radius: size of the shape; kinds are scaled to look about equally large. No shape extends further than 1.15
            radii from its center along x or y.
        rgb: the color as rendered.
    """

    kind: str
    color: str
    x: int
    y: int
    radius: int
    rgb: tuple[int, int, int]

    @property
    def size(self) -> str:
        """Size class with the nearest radii: "small", "medium" or "large"."""
        return min(SIZES, key=lambda name: abs(self.radius - sum(SIZES[name]) / 2))

    @property
    def region(self) -> str:
        """Ninth of the picture that contains the center: "top left", "top", ..., "center", ..., "bottom right"."""
        row = ("top", "", "bottom")[min(3 * self.y // UNITS, 2)]
        column = ("left", "", "right")[min(3 * self.x // UNITS, 2)]
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True)
class Scene:
    """Shapes that do not touch, on a plain background.

    Attributes:
        shapes: at most `MAX_SHAPES` shapes, in no particular order.
        background: a name from `BACKGROUNDS`.
        background_rgb: the background as rendered.
    """

    shapes: tuple[Shape, ...]
    background: str
    background_rgb: tuple[int, int, int]


def relations(a: Shape, b: Shape) -> set[str]:
    """Return relations of a to b by GenEval's rule: shorten the offset by a tenth of both sizes, then use the angle."""
    offset = (a.x - b.x, a.y - b.y)
    slack = 0.1 * 2 * (a.radius + b.radius)
    dx, dy = (math.copysign(max(abs(o) - slack, 0), o) for o in offset)
    length = math.hypot(*offset)
    found = set()
    if length:
        found |= {"left of"} if dx / length < -0.5 else {"right of"} if dx / length > 0.5 else set()
        found |= {"above"} if dy / length < -0.5 else {"below"} if dy / length > 0.5 else set()
    return found


# --- what training never shows --------------------------------------------------------------------------------------


def _share(share: float, *parts: object) -> bool:
    """Return whether these parts belong to a fixed pseudo-random share of all possible ones."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


@cache
def held_out_pair(first: str, second: str) -> bool:
    """Return whether no training scene shows both kinds of shape (2 of 15 pairs)."""
    return {first, second} in ({"triangle", "cross"}, {"circle", "star"})


@cache
def held_out_relation(first: str, relation: str, second: str) -> bool:
    """Return whether training never shows `first` in `relation` to `second` (about an eighth of the ordered pairs)."""
    if relation in ("right of", "below"):
        first, relation, second = second, OPPOSITE[relation], first
    return first != second and not held_out_pair(first, second) and _share(0.12, "relation", first, relation, second)


@cache
def held_out_attribution(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Return whether no training scene shows both (color, kind) pairs (about a tenth of those with two kinds)."""
    if first[1] == second[1] or held_out_pair(first[1], second[1]):
        return False
    return _share(0.1, "attribution", *sorted((first, second)))


def held_out(a: Shape, b: Shape) -> bool:
    """Return whether training never shows these two shapes in this arrangement."""
    return (
        held_out_pair(a.kind, b.kind)
        or held_out_attribution((a.color, a.kind), (b.color, b.kind))
        or any(held_out_relation(a.kind, relation, b.kind) for relation in relations(a, b))
    )


# --- scenes at random -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """Properties that a shape must have; None leaves a property random.

    Attributes:
        kind, color, size, region: as in `Shape`.
        relation: (relation, index): the shape must clearly be in this relation to the shape with that index.
    """

    kind: str | None = None
    color: str | None = None
    size: str | None = None
    region: str | None = None
    relation: tuple[str, int] | None = None


def sample_scene(
    rng: Random, wishes: list[Wish], *, background: str | None = None, training: bool = True
) -> Scene | None:
    """Sample a scene with one shape per wish.

    Args:
        rng: the only source of randomness.
        wishes: at most `MAX_SHAPES` wishes.
        background: name of the background, or None for any.
        training: whether to leave out what training never shows.

    Returns:
        The scene, or None if no place was found (call again).
    """
    shapes: list[Shape] = []
    for wish in wishes:
        for _ in range(PLACE_TRIES):
            shape = _sample_shape(rng, wish)
            if _fits(shape, shapes, wish) and not (training and any(held_out(shape, other) for other in shapes)):
                shapes.append(shape)
                break
        else:
            return None
    background = background or rng.choice(tuple(BACKGROUNDS))
    return Scene(tuple(shapes), background, tinted(rng, BACKGROUNDS[background]))


def _sample_shape(rng: Random, wish: Wish) -> Shape:
    kind = wish.kind or rng.choice(SHAPES)
    color = wish.color or rng.choice(tuple(COLORS))
    radius = rng.choice(SIZES[wish.size or rng.choice(tuple(SIZES))])
    low, high = radius + MARGIN, UNITS - radius - MARGIN
    return Shape(kind, color, rng.randint(low, high), rng.randint(low, high), radius, tinted(rng, PALETTE[color]))


def tinted(rng: Random, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Vary a color by at most `TINT` in each channel."""
    red, green, blue = (min(max(value + rng.randint(-TINT, TINT), 0), 255) for value in rgb)
    return red, green, blue


def _fits(shape: Shape, others: list[Shape], wish: Wish) -> bool:
    if wish.region is not None and shape.region != wish.region:
        return False
    if any(_touch(shape, other) for other in others):
        return False
    return wish.relation is None or clearly(wish.relation[0], shape, others[wish.relation[1]])


def _touch(a: Shape, b: Shape) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) < REACH * (a.radius + b.radius) + GAP


def clearly(relation: str, a: Shape, b: Shape) -> bool:
    """Return whether a is clearly in this relation to b, with no other relation close."""
    across, along = abs(a.x - b.x), abs(a.y - b.y)
    if relation in ("left of", "right of"):
        across, along = along, across
    return relation in relations(a, b) and along >= 1.5 * across


# --- rendering ------------------------------------------------------------------------------------------------------

REACH = 1.15  # largest extent of any shape from its center along x or y, in radii


def _star_edge(angle: np.ndarray) -> np.ndarray:
    """Return the distance of a star's edge from its center: five points, outer radius 1.15, inner 0.5."""
    outer, inner, half = REACH, 0.5, math.pi / 5
    phi = np.abs((angle + math.pi / 2) % (2 * half) - half)  # 0 at a notch, pi/5 at a point
    phi = half - phi  # 0 at a point, pi/5 at a notch
    return outer * inner * math.sin(half) / (outer * np.sin(phi) + inner * np.sin(half - phi))


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return which points (in radii from the center, v downwards) belong to a shape."""
    if kind == "circle":
        return u**2 + v**2 <= 1
    if kind == "ring":
        return (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.3)
    if kind == "square":
        return np.maximum(abs(u), abs(v)) <= 0.81
    if kind == "diamond":
        return abs(u) + abs(v) <= REACH
    if kind == "cross":
        return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.3)
    if kind == "triangle":
        return (v <= 0.75) & (abs(u) <= (v + 1.05) * 0.5833)
    if kind == "star":
        return np.hypot(u, v) <= _star_edge(np.arctan2(v, u))
    if kind == "heart":
        x, y = 1.15 * u, 0.25 - 1.15 * v
        return (x**2 + y**2 - 1) ** 3 - x**2 * y**3 <= 0
    raise ValueError(f"shape is {kind!r}; choose from {', '.join(SHAPES + RESERVED_SHAPES)}")


@lru_cache(maxsize=4096)
def coverage(kind: str, radius: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Return how much of each pixel a shape covers.

    Args:
        kind: kind of the shape.
        radius: radius in pixels.
        dx, dy: offset of the shape's center from a pixel corner, in [0, 1).

    Returns:
        (2n, 2n) float32 in [0, 1]; the shape's center lies dx to the right of the array's middle and dy below it.
    """
    half = math.ceil(REACH * radius) + 1
    steps = (np.arange(2 * half * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - half
    u, v = (steps - dx) / radius, (steps - dy) / radius
    inside = _inside(kind, u[None, :], v[:, None]).astype(np.float32)
    blocks = inside.reshape(2 * half, SUPERSAMPLING, 2 * half, SUPERSAMPLING)
    mask = blocks.mean(axis=(1, 3))
    mask.setflags(write=False)
    return mask


def covered(kind: str, x: float, y: float, radius: float, size: int) -> tuple[slice, slice, np.ndarray]:
    """Return the rows and columns of a picture that contain a shape, and how much of each pixel there it covers.

    Args:
        kind: kind of the shape.
        x, y: center in pixels.
        radius: radius in pixels.
        size: side of the picture in pixels; the shape is cut at its edges.
    """
    left, top = math.floor(x), math.floor(y)
    mask = coverage(kind, radius, x - left, y - top)
    half = mask.shape[0] // 2
    x0, y0 = left - half, top - half
    rows, columns = (slice(max(0, one), max(0, min(size, one + 2 * half))) for one in (y0, x0))
    return rows, columns, mask[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]


def render(scene: Scene, size: int = UNITS) -> np.ndarray:
    """Render a scene as (size, size, 3) uint8 pixels with antialiased edges.

    Example:
        >>> circle = Shape("circle", "red", x=32, y=32, radius=12, rgb=(220, 40, 40))
        >>> render(Scene((circle,), "gray", (150, 152, 156))).shape
        (64, 64, 3)
    """
    canvas = np.empty((size, size, 3), dtype=np.float32)
    canvas[:] = scene.background_rgb
    scale = size / UNITS
    for shape in scene.shapes:
        rows, columns, alpha = covered(shape.kind, shape.x * scale, shape.y * scale, shape.radius * scale, size)
        part = canvas[rows, columns]
        part += alpha[..., None] * (np.array(shape.rgb, np.float32) - part)
    return (canvas + 0.5).astype(np.uint8)
