"""Plan which sample of which source comes where, as a function of only (seed, step, number).

Tasks take turns by their shares: after any step, the number of samples of a task differs from its share by at most
about one. Within a task, sources take turns by weight in the same way, and each source is traversed in a new order in
every epoch. So a run can be resumed without any state of the data, and any number of processes sees the same global
batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from janusflow.data.constraints import NonNegativeFloat, PositiveInt

TASKS = ("understanding", "generation", "text")
ROUNDS = 4  # rounds of the Feistel network that permutes a source


@dataclass(frozen=True)
class Ratio:
    """Each task's share of the samples of a step, and the step until which the shares hold (None: to the end)."""

    understanding: NonNegativeFloat
    generation: NonNegativeFloat
    text: NonNegativeFloat
    until: PositiveInt | None = None


@dataclass(frozen=True)
class Draw:
    """The `count`-th sample (from 0) that a run takes from source `source` of a task."""

    task: str
    source: int
    count: int


class Mixture:
    """The plan of all steps.

    Args:
        ratios: ratios of the tasks, in order; all but the last have an `until`.
        weights: weights of each task's sources, by task.
        seed: seed of the order within a step.

    Raises:
        ValueError: if there are no ratios, a ratio gives a share to a task without sources or to no task, all weights
            of a task are 0, or `until` is missing, not growing, or given for the last ratio.
    """

    def __init__(
        self, ratios: Sequence[Ratio], weights: Mapping[str, Sequence[float]], *, batch_size: int, seed: int
    ) -> None:
        self.ratios, self.batch_size, self.seed = tuple(ratios), batch_size, seed
        if not self.ratios:
            raise ValueError("data.ratios are empty; expected the shares of understanding, generation and text")
        self.weights = {task: tuple(weights.get(task, ())) for task in TASKS}
        for task, given in self.weights.items():
            if given and not any(given):
                raise ValueError(f"sources of {task} have weights {list(given)}; expected one above 0")
        for ratio in self.ratios:
            shares = _shares(ratio)
            if not any(shares.values()):
                raise ValueError(f"the data ratio {ratio} has no positive share")
            for task, share in shares.items():
                if share > 0 and not self.weights[task]:
                    raise ValueError(
                        f"the data ratio gives {share:g} to {task}, but no source of {task} is given; give data=FOLDER "
                        f"with records for it, or data.{task}"
                    )
        untils = [ratio.until for ratio in self.ratios]
        if (
            untils[-1] is not None
            or None in untils[:-1]
            or untils[:-1] != sorted(set(untils[:-1]), key=lambda u: u or 0)
        ):
            raise ValueError("data ratios must follow one another: every one but the last with a growing 'until'")

    def plan(self, step: int) -> list[Draw]:
        """Return the samples of a step, in the order of their numbers."""
        draws: list[Draw] = []
        before, after = self._taken(step), self._taken(step + 1)
        for task in TASKS:
            for count in range(before[task], after[task]):
                source, taken = self._source(task, count)
                draws.append(Draw(task, source, taken))
        Random(f"{self.seed}/{step}").shuffle(draws)
        return draws

    @lru_cache(maxsize=4)  # noqa: B019 (one mixture lives as long as its run)
    def _taken(self, step: int) -> dict[str, int]:
        """Return how many samples of each task come before this step; their sum is exactly step * batch_size."""
        taken = dict.fromkeys(TASKS, 0)
        start = 0
        for ratio in self.ratios:
            end = step if ratio.until is None else min(step, ratio.until)
            number = max(end - start, 0) * self.batch_size
            for task, count in zip(TASKS, apportion(number, [_shares(ratio)[task] for task in TASKS]), strict=True):
                taken[task] += count
            start = max(start, end)
        return taken

    def _source(self, task: str, count: int) -> tuple[int, int]:
        """Return the source of a task's count-th sample, and how many samples that source gave before."""
        weights = self.weights[task]
        if len(weights) == 1:
            return 0, count
        before, after = (apportion(number, weights) for number in (count, count + 1))
        source = next(index for index, (a, b) in enumerate(zip(before, after, strict=True)) if b > a)
        return source, before[source]


def _shares(ratio: Ratio) -> dict[str, float]:
    return {"understanding": ratio.understanding, "generation": ratio.generation, "text": ratio.text}


def apportion(number: int, weights: Sequence[float]) -> list[int]:
    """Return how many of the first `number` samples each weight gets when they take turns (Webster's method).

    The k-th sample (from 0) of weight w is due at (k + 1/2) / w, and the earliest due is taken. So no count ever falls
    when the number grows, and each stays within about one of its share.
    """
    total = sum(weights)
    counts = [max(0, math.floor(number * weight / total) - len(weights)) for weight in weights]
    while sum(counts) < number:
        due = [((c + 0.5) / w, i) for i, (c, w) in enumerate(zip(counts, weights, strict=True)) if w > 0]
        counts[min(due)[1]] += 1
    return counts


def index_of(count: int, length: int, seed: str) -> int:
    """Return the index of a source's count-th sample among `length` records: each once per epoch, in a new order."""
    epoch, place = divmod(count, length)
    return permuted(place, length, f"{seed}/{epoch}")


def permuted(place: int, length: int, seed: str) -> int:
    """Return one place of a pseudo-random permutation of range(length): a Feistel network with cycle walking."""
    half = max(1, math.ceil(math.log2(max(length, 2)) / 2))
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(ROUNDS):
            digest = hashlib.blake2b(f"{seed}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        place = (left << half) | right
        if place < length:
            return place
