"""The values behind a score, from which its n and interval are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from janusflow.evaluation.protocol import Row


@dataclass(frozen=True)
class ScoreSample:
    """The values behind a score.

    Attributes:
        values: one value for each item, question or picture that counts.
        groups: the group of each value. Values of one group (the pictures of a prompt, the questions of a picture) are
            not independent.
        whole: the score if every value is 1, for a score that is the mean of its values: 1, or 100 in percent. 0 for
            any other score, such as an F1.
        distance: whether the score is a distance between distributions, in [0, 1], which resampling overestimates.
    """

    values: Sequence[float]
    groups: Sequence[str]
    whole: float = 0.0
    distance: bool = False

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)


def over(
    rows: Iterable[Row],
    value: Callable[[Row], float] | None = None,
    *,
    whole: float = 0.0,
    distance: bool = False,
) -> ScoreSample:
    """Return a sample with one value per item.

    Args:
        value: function from a row to its value; by default the row's score.

    Example:
        >>> from janusflow.evaluation.protocol import Item, Row
        >>> rows = [Row(Item(f"{n}", "a star"), "", {"score": 50}) for n in range(12)]
        >>> over(rows, whole=100).n  # a share in percent
        12
    """
    rows = list(rows)
    values = [row.score if value is None else float(value(row)) for row in rows]
    return ScoreSample(values, [row.item.group or row.item.key for row in rows], whole, distance)


def by_part(
    rows: Iterable[Row],
    parts: Callable[[Row], Iterable[str]],
    *,
    whole: float = 100,
    first: Sequence[str] = ("overall",),
) -> dict[str, ScoreSample]:
    """Return a sample of scores for each part of a benchmark.

    Args:
        parts: function from a row to the names of its parts.
        first: names that come first, in this order; the others follow sorted.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for part in dict.fromkeys(parts(row)):
            found[part].append(row)
    names = [*(name for name in first if name in found), *sorted(found.keys() - set(first))]
    return {name: over(found[name], whole=whole) for name in names}
