"""The plan of a run is a function of the step, exact in its shares, and walks through every source in epochs."""

from __future__ import annotations

from collections import Counter

import pytest

from janusflow.data.mixture import Mixture, Ratio, apportion, index_of, permuted
from tests.training.paper import PAPER

WEIGHTS = {"understanding": [1.0, 3.0], "generation": [1.0], "text": [2.0, 1.0, 1.0]}


def mixture(**changes: object) -> Mixture:
    settings: dict = {"ratios": PAPER["stage2"].ratios, "weights": WEIGHTS, "batch_size": 512, "seed": 0, **changes}
    return Mixture(settings.pop("ratios"), settings.pop("weights"), **settings)


def test_shares_are_exact_over_time_and_change_when_they_should() -> None:
    plan = mixture()
    for steps, expected in (
        (range(50), (30, 50, 20)),
        (range(9_950, 10_000), (30, 50, 20)),
        (range(10_000, 10_050), (14, 80, 6)),
    ):
        counts = Counter(draw.task for step in steps for draw in plan.plan(step))
        assert counts.total() == 50 * 512
        for task, share in zip(("understanding", "generation", "text"), expected, strict=True):
            assert abs(counts[task] - 50 * 512 * share / 100) <= 2


def test_every_draw_of_a_source_comes_once_and_in_order() -> None:
    plan = mixture(batch_size=7)
    draws = [draw for step in range(60) for draw in plan.plan(step)]
    by_source: dict[tuple[str, int], list[int]] = {}
    for draw in draws:
        by_source.setdefault((draw.task, draw.source), []).append(draw.count)
    assert len(by_source) == 6
    for counts in by_source.values():
        assert sorted(counts) == list(range(len(counts)))
    understanding = [len(by_source["understanding", source]) for source in (0, 1)]
    assert abs(3 * understanding[0] - understanding[1]) <= 3


def test_a_step_needs_nothing_of_the_steps_before() -> None:
    late = mixture().plan(12_345)
    plan = mixture()
    for step in (5, 12_344, 7):
        plan.plan(step)
    assert plan.plan(12_345) == late
    assert mixture(seed=1).plan(12_345) != late


def test_apportionment_never_takes_back() -> None:
    for weights in ([1, 1, 1], [0.2, 0.5, 0.3], [7, 1, 0, 2.5], [1e-3, 1, 1]):
        before = [0] * len(weights)
        for number in range(1, 400):
            counts = apportion(number, weights)
            assert sum(counts) == number
            assert all(a >= b for a, b in zip(counts, before, strict=True))
            for count, weight in zip(counts, weights, strict=True):
                assert abs(count - number * weight / sum(weights)) < 1.5
            before = counts


@pytest.mark.parametrize("length", [1, 2, 3, 10, 97, 1000])
def test_an_epoch_is_a_permutation_and_the_next_is_another(length: int) -> None:
    epochs = [[index_of(epoch * length + place, length, "s") for place in range(length)] for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    if length > 3:
        assert epochs[0] != epochs[1]
        assert epochs[0] != list(range(length))
    assert permuted(0, length, "a") in range(length)


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([], "ratios are empty"),
        ([Ratio(0, 0, 0)], "no positive share"),
        ([Ratio(1, 1, 1, until=5)], "must follow one another"),
        ([Ratio(1, 1, 1), Ratio(1, 1, 1)], "must follow one another"),
        ([Ratio(1, 1, 1, until=9), Ratio(1, 1, 1, until=5), Ratio(1, 1, 1)], "must follow one another"),
    ],
)
def test_ratios_that_make_no_sense(ratios: list[Ratio], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mixture(ratios=ratios)
    with pytest.raises(ValueError, match="no source of text"):
        mixture(weights={"understanding": [1.0], "generation": [1.0]})
