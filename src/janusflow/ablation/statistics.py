"""Intervals over seeds, paired differences, verdicts, and the smallest detectable effect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import optimize, stats

CONFIDENCE, POWER = 0.95, 0.8
PAIRS = 3  # fewest for a verdict: two that agree by chance give a tiny deviation
ROUNDING = 1e-9  # deviations below this fraction of the largest value come from rounding


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % t interval, mean - half to mean + half.

    Attributes:
        n: number of values.
        mean: mean of the values.
        deviation: standard deviation of the values; None for fewer than two values.
        half: half-width of the interval; None for fewer than two values.
    """

    n: int
    mean: float
    deviation: float | None
    half: float | None

    @property
    def effect_size(self) -> float | None:
        """Mean divided by the standard deviation; Cohen's d_z for paired differences."""
        return self.mean / self.deviation if self.deviation else None

    @property
    def p_value(self) -> float | None:
        """p value of a two-sided t test for a mean of 0; None if it cannot be tested."""
        if not self.deviation:
            return None
        return 2 * float(stats.t.sf(abs(self.mean) / self.deviation * math.sqrt(self.n), self.n - 1))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero. An interval of zero width, from equal values, counts as including it."""
        return bool(self.half) and abs(self.mean) > (self.half or 0.0)


def interval(values: Sequence[float], scale: float = 0.0) -> Interval:
    """Return mean +- t_{0.975, n-1} s / sqrt(n).

    Args:
        values: one or more values, one per seed.
        scale: magnitude of the numbers that the values were computed from, if it was larger. Deviations at the level of
            their rounding count as 0.

    Example:
        >>> round(interval([1.0, 2.0, 3.0]).half, 3)
        2.484
    """
    n, mean = len(values), fmean(values)
    if n < 2:
        return Interval(n, mean, None, None)
    deviation = stdev(values)
    if deviation <= ROUNDING * max(scale, *map(abs, values)):
        deviation = 0.0
    return Interval(n, mean, deviation, float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n))


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """Return the interval of the differences by seed, over the seeds that both have, or None if there are none."""
    both = sorted(values.keys() & baseline.keys())
    scale = max((abs(scores[seed]) for scores in (values, baseline) for seed in both), default=0.0)
    return interval([values[seed] - baseline[seed] for seed in both], scale) if both else None


def verdict(
    difference: Interval | None, expected: str | None, *, lower_is_better: bool, corrected: float | None = None
) -> str:
    """Judge a claim by the interval of a difference.

    Args:
        difference: variant minus baseline.
        expected: claim about the variant: "better", "worse" or "equal"; None if there is no claim.
        lower_is_better: whether lower values of the metric are better.
        corrected: p value, corrected for the number of claims in the table; None if this is the only one.

    Returns:
        A short verdict. A claim is "supported" if the interval excludes zero on the expected side, and "confirmed" if
        the corrected p value is also below 0.05; on the other side, it is "contradicted" or "refuted".
    """
    if difference is None or difference.n < PAIRS:
        return f"not tested: fewer than {PAIRS} pairs"
    if not difference.half:
        return "not tested: all differences are equal"
    claim = "" if expected is None else f" ({expected})"
    if not difference.excludes_zero:
        return f"{'no difference found' if expected in (None, 'equal') else 'not confirmed'}{claim}"
    found = "better" if (difference.mean < 0) == lower_is_better else "worse"
    if expected is None:
        return found
    if expected == "equal":
        return f"{found}, but equal in the claim"
    significant = corrected is None or corrected < 1 - CONFIDENCE
    if found == expected:
        return ("confirmed" if significant else "supported") + claim
    return ("refuted" if significant else "contradicted") + claim


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values with Holm's method, which controls the family-wise error rate.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def pooled(deviations: Sequence[tuple[int, float]]) -> float | None:
    """Pool standard deviations, given as (n, s): sqrt(sum (n - 1) s^2 / sum (n - 1)). Return None for an empty list.

    Example:
        >>> pooled([(3, 3.0), (3, 4.0)])
        3.5355339059327378
    """
    weight = sum(n - 1 for n, _ in deviations)
    return math.sqrt(sum((n - 1) * s**2 for n, s in deviations) / weight) if weight else None


def smallest_effect(deviation: float, n: int) -> float:
    """Return the smallest mean difference that a paired t test detects with 80 % power (two-sided, 5 %).

    Args:
        deviation: standard deviation of the paired differences.
        n: number of seeds, at least two.

    Raises:
        ValueError: if there are fewer than two seeds, or the deviation is not positive.
    """
    if n < 2 or not deviation > 0 or not math.isfinite(deviation):
        raise ValueError(f"{n} seeds and a deviation of {deviation:g} were given; expected two or more, and above 0")
    limit = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))

    def missing(effect: float) -> float:
        return float(stats.nct.sf(limit, n - 1, effect * math.sqrt(n))) - POWER  # the other tail is negligible

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return deviation * float(optimize.brentq(missing, 0.0, high))
