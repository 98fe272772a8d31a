"""Distance between the distributions of generated pictures and of the data: total variation over named bins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

OTHER = "other"  # bin for what could not be read


def total_variation(found: Iterable[str], wanted: Mapping[str, float]) -> float:
    """Return the total variation between shares of values and a distribution: half the sum of absolute differences.

    It is 0 if the shares match the distribution, and 1 if the distribution allows none of the values. For n values
    sampled from the distribution itself, it is about sum(sqrt(p (1 - p) / n)) * 0.4.

    Args:
        found: bin of each picture; `OTHER` is allowed.
        wanted: weight of each bin; their sum is above 0.

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
