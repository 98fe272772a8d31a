"""Intervals: Wilson's by known values, effective numbers of grouped values, and the bootstrap over groups."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from string import ascii_letters

import pytest

from janusflow.evaluation.protocol import Item, Row
from janusflow.evaluation.reports.intervals import bootstrap, effective_number, intervals, is_share, reflected, wilson
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.evaluation.spread import total_variation
from tests.evaluation.counting import Counting, CountingSettings


def sample(*values: float, each: int = 1, whole: float = 100) -> ScoreSample:
    """Values in groups of `each`."""
    return ScoreSample(values, [str(place // each) for place in range(len(values))], whole)


def test_wilson_ends_exactly_where_all_values_are_equal() -> None:
    for n in range(1, 200):
        assert wilson(sample(*[0] * n))[0] == 0 and wilson(sample(*[1] * n))[1] == 100


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(1, 1, 20.65, 100), (0, 1, 0, 79.35), (6, 12, 25.38, 74.62), (10, 10, 72.25, 100), (81, 263, 25.53, 36.62)],
)
def test_wilson_by_known_values(right: int, n: int, low: float, high: float) -> None:
    """The last is Newcombe's example (1998, table I)."""
    assert wilson(sample(*[1] * right, *[0] * (n - right))) == pytest.approx((low, high), abs=0.01)


def test_the_interval_of_a_distance_is_reflected_at_the_score() -> None:
    assert reflected(0.3, (0.25, 0.5)) == pytest.approx((0.1, 0.35))
    assert reflected(0.1, (0.12, 0.3)) == pytest.approx((0, 0.1)), "the score itself is not left out"
    assert reflected(0.9, (0.7, 0.95)) == pytest.approx((0.85, 1))


def test_resampling_does_not_push_a_distance_away_from_what_it_is() -> None:
    """Pictures that follow the wanted distribution: percentiles of the resamples would exclude the distance itself."""

    class Spread(Counting):
        def scores(self, rows: Sequence[Row]) -> dict[str, float]:
            return {"spread": total_variation((row.output for row in rows), dict.fromkeys(ascii_letters, 1))}

    rng = Random(0)
    rows = [Row(Item(str(n), "?"), rng.choice(ascii_letters), {"score": 0}) for n in range(100)]
    benchmark = Spread(None, CountingSettings())
    (score,) = benchmark.scores(rows).values()
    far = intervals(benchmark, rows, {"spread": score}, {"spread": over(rows)})["spread"]
    near = intervals(benchmark, rows, {"spread": score}, {"spread": over(rows, distance=True)})["spread"]
    assert far[0] > score and near[0] < score <= near[1] < far[1]


def test_values_of_a_group_count_less_where_they_agree() -> None:
    assert effective_number(sample(*[1, 1, 0, 0] * 10)) == 40
    assert effective_number(sample(*[1, 1, 0, 0] * 10, each=2)) == pytest.approx(19)
    assert effective_number(sample(*[1, 0] * 6, each=2)) == 12, "each group is half right: no spread between them"
    assert effective_number(sample(*[1] * 12, each=4)) == 3, "how much they agree is not known"
    assert effective_number(sample(1, 0, 1, each=3)) == 1
    assert wilson(sample(1, 1, 1, 1, each=4)) == wilson(sample(1))


def test_only_means_of_ones_and_zeros_are_shares() -> None:
    assert is_share(sample(1, 0), 50) and is_share(sample(0, 0), 0)
    for values, whole, score in (((1, 0.5), 100, 75), ((1, 0), 0, 50), ((1, 0), 100, 66), ((), 100, 0)):
        assert not is_share(sample(*values, whole=whole), score)


def rows_of(*scores: float) -> list[Row]:
    return [Row(Item(str(n), ""), "", {"score": score}) for n, score in enumerate(scores)]


def test_no_interval_collapses() -> None:
    """One item, twelve that are half right in pairs, and graded ones that are all equal."""
    benchmark = Counting(None, CountingSettings())
    one = rows_of(1)
    assert bootstrap(benchmark, one)["overall"] == (1, 1)
    assert intervals(benchmark, one, benchmark.scores(one), benchmark.samples(one))["overall"][0] == pytest.approx(
        0.2065, abs=1e-3
    )
    graded = rows_of(*[0.5] * 12)
    assert intervals(benchmark, graded, benchmark.scores(graded), benchmark.samples(graded)) == {}
    spread = rows_of(*[0.25, 0.75] * 6)
    assert intervals(benchmark, spread, benchmark.scores(spread), benchmark.samples(spread)) == {
        "overall": bootstrap(benchmark, spread)["overall"]
    }, "no share: as the bootstrap has it"


@pytest.mark.parametrize("percent", [1, 100])
def test_a_benchmark_that_names_no_samples_has_n_and_shares(percent: int) -> None:
    class Mine(Counting):
        def scores(self, rows):  # type: ignore[no-untyped-def]
            return {"overall": percent * sum(row.score for row in rows) / len(rows)}

    for scores in ((0, 0, 0), (1, 0, 1)):
        rows = rows_of(*scores)
        benchmark = Mine(None, CountingSettings())
        samples = benchmark.samples(rows)
        assert samples == {"overall": over(rows, whole=percent)} and samples["overall"].n == 3
        low, high = intervals(benchmark, rows, benchmark.scores(rows), samples)["overall"]
        assert high - low > percent / 3


def test_the_bootstrap_draws_groups() -> None:
    """Ten groups of ten equal rows have intervals as wide as ten rows, not as a hundred."""

    def rows(groups: int, each: int) -> list[Row]:
        items = [Item(f"{g}-{n}", "", group=str(g)) for g in range(groups) for n in range(each)]
        return [Row(item, "", {"score": float(int(item.group) % 2)}) for item in items]

    benchmark = Counting(None, CountingSettings())
    wide = bootstrap(benchmark, rows(10, 10))["overall"]
    narrow = bootstrap(benchmark, rows(100, 1))["overall"]
    assert wide[1] - wide[0] > 0.4 and 0.1 < narrow[1] - narrow[0] < 0.25
    assert bootstrap(benchmark, rows(10, 10)) == bootstrap(benchmark, rows(10, 10))
