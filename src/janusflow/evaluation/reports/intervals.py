"""95 % intervals of scores: Wilson's for shares, the bootstrap's for every other score (the basic one for distances).

A bootstrap of a few equal items finds no spread ("1 to 1" for one item, "50 to 50" for twelve); Wilson's interval of
the same share does not collapse.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from janusflow.evaluation.protocol import Benchmark, Row
from janusflow.evaluation.score_sample import ScoreSample

RESAMPLES, BOOTSTRAP_SECONDS = 1000, 60
Z = 1.959964  # for 95 % of a normal distribution
FEW = 30  # scores over fewer values are marked
Interval = tuple[float, float]


def intervals(
    benchmark: Benchmark, rows: Sequence[Row], scores: Mapping[str, float], samples: Mapping[str, ScoreSample]
) -> dict[str, Interval]:
    """Return the 95 % interval of every score that has one.

    A bootstrap interval without any width is left out: there are too few different items to say anything.

    Args:
        samples: the values behind the scores; see `Benchmark.samples`.
    """
    found = bootstrap(benchmark, rows) if rows and benchmark.bootstrap else {}
    for name, score in scores.items():
        if name in found and name in samples and samples[name].distance:
            found[name] = reflected(score, found[name])
    found = {name: (low, high) for name, (low, high) in found.items() if high > low}
    if rows:
        found |= benchmark.intervals_of_all(rows)
    shares = {name: sample for name, sample in samples.items() if name in scores and is_share(sample, scores[name])}
    return {name: wilson(shares[name]) if name in shares else found[name] for name in scores if name in found | shares}


def reflected(score: float, interval: Interval) -> Interval:
    """Return the basic bootstrap's interval of a distance in [0, 1], from the percentiles of its resamples.

    A resample is farther from the wanted distribution than the sample is, as the sample is farther than what it was
    drawn from, so the percentiles may even exclude the score. Reflecting them at the score removes this bias.
    """
    low, high = interval
    return max(0.0, 2 * score - high), min(1.0, max(score, 2 * score - low))


def is_share(sample: ScoreSample, score: float) -> bool:
    """Return whether a score is the share of values that are 1, with all others 0."""
    if not sample.whole or not sample.values or any(value not in (0, 1) for value in sample.values):
        return False
    return math.isclose(score, sample.whole * sum(sample.values) / sample.n, rel_tol=1e-6, abs_tol=1e-9)


def wilson(sample: ScoreSample) -> Interval:
    """Return Wilson's score interval of a share (Wilson 1927), on the scale of `sample.whole`.

    If values come in groups, n is their effective number; see `effective_number`.
    """
    share, n = sum(sample.values) / sample.n, effective_number(sample)
    center = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    low = 0.0 if share == 0 else center - half  # in exact arithmetic these ends are 0 and 1
    high = 1.0 if share == 1 else center + half
    return sample.whole * low, sample.whole * high


def effective_number(sample: ScoreSample) -> float:
    """Return how many independent values would have the sample's standard error: n over the design effect, at most n.

    If all values are equal, it is unknown how much those of a group agree, and each group counts once.
    """
    n, share = sample.n, sum(sample.values) / sample.n
    rest: dict[str, float] = defaultdict(float)
    for value, group in zip(sample.values, sample.groups, strict=True):
        rest[group] += value - share
    groups = len(rest)
    if groups == n:
        return n
    if share in (0, 1) or groups == 1:
        return groups
    variance = groups / (groups - 1) * sum(one**2 for one in rest.values()) / n**2
    return n if not variance else min(n, max(1.0, share * (1 - share) / variance))


def bootstrap(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Interval]:
    """Return 95 % percentile intervals of `benchmark.scores`.

    Groups of items are sampled with replacement up to 1,000 times; if scoring is slow, fewer times, but at least 100.
    Scores that exist in less than half of the samples are left out.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.item.group or row.item.key].append(row)
    units, rng = list(groups.values()), Random(0)
    found: dict[str, list[float]] = defaultdict(list)
    started, times = time.monotonic(), 0
    while times < RESAMPLES and (times < 100 or time.monotonic() - started < BOOTSTRAP_SECONDS):
        drawn = [row for unit in rng.choices(units, k=len(units)) for row in unit]
        for name, value in benchmark.scores(drawn).items():
            if math.isfinite(value):
                found[name].append(value)
        times += 1
    ordered = {name: sorted(values) for name, values in found.items() if 2 * len(values) >= times}
    return {name: (_at(values, 0.025), _at(values, 0.975)) for name, values in ordered.items()}


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]
