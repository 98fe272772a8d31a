"""Which sample of which source stands where: a function of (seed, step, number) and of nothing else.

Tasks take turns by their shares: after any step the samples drawn of a task differ from its share by about one at most.
Within a task its sources take turns by weight in the same way, and each source is walked through in a new order in
every epoch. So a run needs no state of the data to be resumed, and any number of processes sees the same
global batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from janusflow.data.constraints import FromOne, FromZero

TASKS = ("understanding", "generation", "text")
ROUNDS = 4  # of the Feistel network that permutes a source


@dataclass(frozen=True)
class Ratio:
    """Shares of the samples of a step, and the step until which they hold (None: to the end)."""

    understanding: FromZero
    generation: FromZero
    text: FromZero
    until: FromOne | None = None


@dataclass(frozen=True)
class Draw:
    """The `count`-th sample (from 0) that is ever taken of source `source` of a task."""

    task: str
    source: int
    count: int


class Mixture:
    """The plan of all steps.

    Args:
        ratios: of the tasks, one after the other; every one but the last has an `until`.
        weights: of each task's sources, by task.
        seed: of the order within a step.

    Raises:
        ValueError: if a ratio gives a share to a task without sources, or nothing to all.
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
        """The samples of a step, in the order of their numbers."""
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
        """Samples of each task in the steps before this one; together exactly step * batch_size."""
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
        """The source of the count-th sample of a task, and how many that source gave before."""
        weights = self.weights[task]
        if len(weights) == 1:
            return 0, count
        before, after = (apportion(number, weights) for number in (count, count + 1))
        source = next(index for index, (a, b) in enumerate(zip(before, after, strict=True)) if b > a)
        return source, before[source]


def _shares(ratio: Ratio) -> dict[str, float]:
    return {"understanding": ratio.understanding, "generation": ratio.generation, "text": ratio.text}


def apportion(number: int, weights: Sequence[float]) -> list[int]:
    """How many of the first `number` samples each weight gets when they take turns (Webster's method).

    The k-th sample (from 0) of weight w is due at (k + 1/2) / w, and the earliest due is taken: so no count ever falls
    when the number grows, and each stays within about one of its share.
    """
    total = sum(weights)
    counts = [max(0, math.floor(number * weight / total) - len(weights)) for weight in weights]
    while sum(counts) < number:
        due = [((c + 0.5) / w, i) for i, (c, w) in enumerate(zip(counts, weights, strict=True)) if w > 0]
        counts[min(due)[1]] += 1
    return counts


def index_of(count: int, length: int, seed: str) -> int:
    """The record that the count-th sample of a source of `length` records is: each once per epoch, in a new order."""
    epoch, place = divmod(count, length)
    return permuted(place, length, f"{seed}/{epoch}")


def permuted(place: int, length: int, seed: str) -> int:
    """A pseudo-random permutation of range(length), computed for one place: a Feistel network with cycle walking."""
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
