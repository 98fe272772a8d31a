"""Intervals over seeds, differences paired by seed, verdicts, and the smallest effect that a number of seeds shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import optimize, stats

CONFIDENCE, POWER = 0.95, 0.8
ROUNDING = 1e-9  # of the largest value: deviations below it come from rounding


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % t interval, mean - half to mean + half.

    Attributes:
        n: number of values.
        mean: of them.
        deviation: their standard deviation; None for fewer than two.
        half: half of the interval's width; None for fewer than two.
    """

    n: int
    mean: float
    deviation: float | None
    half: float | None

    @property
    def effect_size(self) -> float | None:
        """Mean in standard deviations: of paired differences, Cohen's d_z."""
        return self.mean / self.deviation if self.deviation else None

    @property
    def p_value(self) -> float | None:
        """Of a t test whether the mean is 0, two-sided; None where it cannot be tested."""
        if not self.deviation:
            return None
        return 2 * float(stats.t.sf(abs(self.mean) / self.deviation * math.sqrt(self.n), self.n - 1))

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside. An interval without any width, of equal values, says nothing."""
        return bool(self.half) and abs(self.mean) > (self.half or 0.0)


def interval(values: Sequence[float], scale: float = 0.0) -> Interval:
    """mean +- t_{0.975, n-1} s / sqrt(n) of a value or more.

    Args:
        values: one a seed.
        scale: size of the numbers that the values were computed from, if these were larger. A deviation that is only
            their rounding counts as 0.

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
    """The interval of the differences to the baseline by seed, over the seeds that both have; None without any."""
    both = sorted(values.keys() & baseline.keys())
    scale = max((abs(scores[seed]) for scores in (values, baseline) for seed in both), default=0.0)
    return interval([values[seed] - baseline[seed] for seed in both], scale) if both else None


def verdict(difference: Interval | None, expected: str | None, *, lower_is_better: bool) -> str:
    """What the runs say about a claim.

    Args:
        difference: of a variant to the baseline.
        expected: "better", "worse" or "equal", of the variant; None without a claim.
        lower_is_better: of the metric.

    Returns:
        A few words: "confirmed" only if the interval excludes zero on the side that was expected.
    """
    if difference is None or difference.half is None:
        return "not tested: fewer than two pairs"
    if not difference.half:
        return "not tested: all differences are equal"
    if not difference.excludes_zero:
        return "no difference found" if expected in (None, "equal") else f"not confirmed ({expected})"
    found = "better" if (difference.mean < 0) == lower_is_better else "worse"
    if expected in (None, "equal"):
        return found if expected is None else f"{found}, but equal in the paper"
    return f"{'confirmed' if found == expected else 'refuted'} ({expected})"


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of a family of tests with Holm's correction, which keeps the family's error rate.

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
    """One standard deviation from several, (n, s): the root of the mean of s^2, weighted by n - 1; None without any.

    Example:
        >>> pooled([(3, 3.0), (3, 4.0)])
        3.5355339059327378
    """
    weight = sum(n - 1 for n, _ in deviations)
    return math.sqrt(sum((n - 1) * s**2 for n, s in deviations) / weight) if weight else None


def smallest_effect(deviation: float, n: int) -> float:
    """The smallest mean difference that a paired t test of n seeds finds with 80 % probability (5 %, two-sided).

    Args:
        deviation: of the paired differences.
        n: seeds, two or more.

    Raises:
        ValueError: for fewer than two seeds, or a deviation that is not positive.
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
