"""How far the spread of generated pictures is from that of the data: total variation over named bins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

OTHER = "other"  # bin of what could not be read


def total_variation(found: Iterable[str], wanted: Mapping[str, float]) -> float:
    """Total variation between the shares of values and a distribution: half the sum of absolute differences.

    0 if the shares are those of the distribution, 1 if no value is possible in it. n values of the distribution itself
    are about sum(sqrt(p (1 - p) / n)) * 0.4 from it.

    Args:
        found: a bin for each picture, `OTHER` among them.
        wanted: weight of each bin, above 0 in sum.

    Raises:
        ValueError: if there are no values, or no weights.

    Example:
        >>> total_variation(["red", "red", "blue", "blue"], {"red": 1, "blue": 1})
        0.0
    """
    counts, whole = Counter(found), sum(wanted.values())
    n = sum(counts.values())
    if not n or whole <= 0:
        raise ValueError(f"there are {n} values and weights of {whole} in sum; expected more than 0 of both")
    bins = counts.keys() | wanted.keys()
    return sum(abs(counts[one] / n - wanted.get(one, 0.0) / whole) for one in sorted(bins)) / 2
