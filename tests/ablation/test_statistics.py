"""Intervals, verdicts and power against numbers worked out by hand or read from tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from janusflow.ablation.statistics import Interval, holm, interval, paired, pooled, smallest_effect, verdict


def test_an_interval_is_the_t_interval_of_the_table() -> None:
    found = interval([1.0, 2.0, 3.0])  # s = 1, t = 4.303 for two degrees of freedom
    assert (found.n, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert found.effect_size == 2.0 and not found.excludes_zero
    five = interval([4.0, 5.0, 5.0, 5.0, 6.0])  # s^2 = 2 / 4, t = 2.776
    assert five.half == pytest.approx(2.7764 * math.sqrt(0.5) / math.sqrt(5), rel=1e-4)
    assert five.excludes_zero


def test_a_single_value_or_equal_values_exclude_nothing() -> None:
    assert interval([3.0]) == Interval(1, 3.0, None, None)
    assert interval([3.0]).effect_size is None and not interval([3.0]).excludes_zero
    same = interval([3.0, 3.0])
    assert same.half == 0 and same.effect_size is None and not same.excludes_zero


def test_differences_are_paired_by_seed() -> None:
    found = paired({0: 1.0, 1: 12.0, 2: 103.0, 7: 5.0}, {0: 0.0, 1: 10.0, 2: 100.0, 3: 9.0})
    assert found == interval([1.0, 2.0, 3.0])
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_differences_that_are_equal_but_for_rounding_say_nothing() -> None:
    shares = [{0: 37 / 300, 1: 51 / 300}, {0: 30 / 300, 1: 44 / 300}]  # 7 / 300 apart, twice
    found = paired(*shares)
    assert found is not None and found.deviation == 0 and not found.excludes_zero
    third = paired({0: 0.3, 1: 0.4, 2: 0.2}, {0: 0.2, 1: 0.3, 2: 0.1})
    assert third is not None and third.deviation == 0
    assert verdict(third, "better", lower_is_better=False) == "not tested: all differences are equal"


@pytest.mark.parametrize(
    ("differences", "expected", "lower", "said"),
    [
        ([1.0, 1.1, 0.9], "better", False, "confirmed (better)"),
        ([1.0, 1.1, 0.9], "better", True, "refuted (better)"),
        ([-1.0, -1.1, -0.9], "better", True, "confirmed (better)"),
        ([1.0, 1.1, 0.9], "worse", False, "refuted (worse)"),
        ([1.0, 1.1, 0.9], "equal", False, "better, but equal in the claim"),
        ([1.0, 1.1, 0.9], None, False, "better"),
        ([1.0, 2.0, 3.0], "better", False, "not confirmed (better)"),
        ([1.0, 2.0, 3.0], "equal", False, "no difference found (equal)"),
        ([1.0, 2.0, 3.0], None, False, "no difference found"),
        ([1.0, 1.001], "better", False, "not tested: fewer than 3 pairs"),
        ([1.0, 1.0, 1.0], "better", False, "not tested: all differences are equal"),
    ],
)
def test_a_claim_is_confirmed_only_if_the_interval_excludes_zero(
    differences: list[float], expected: str | None, lower: bool, said: str
) -> None:
    assert verdict(interval(differences), expected, lower_is_better=lower).startswith(said)
    assert verdict(None, expected, lower_is_better=lower).startswith("not tested")


def test_a_claim_whose_corrected_p_value_is_not_significant_is_only_supported() -> None:
    found = interval([1.0, 1.1, 0.9])
    for corrected, words in ((0.049, ("confirmed", "refuted")), (0.051, ("supported", "contradicted"))):
        for expected, word in zip(("better", "worse"), words, strict=True):
            assert verdict(found, expected, lower_is_better=False, corrected=corrected) == f"{word} ({expected})"
    assert verdict(found, None, lower_is_better=False, corrected=0.051) == "better"


def test_p_values_are_those_of_a_paired_t_test_and_corrected_for_the_number_of_tests() -> None:
    """Holm: 4 x 0.005 = 0.02; 3 x 0.01 = 0.03, 2 x 0.03 = 0.06, and 0.04, which cannot be less than the one before."""
    ones, others = [0.3, 0.5, 0.9, 0.4], [0.1, 0.4, 0.2, 0.3]
    difference = interval([a - b for a, b in zip(ones, others, strict=True)])
    assert difference.p_value == pytest.approx(stats.ttest_rel(ones, others).pvalue)
    assert interval([1.0]).p_value is None and interval([1.0, 1.0]).p_value is None
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == [0.8, 0.9] and holm([0.7, 0.6]) == [1.0, 1.0] and not holm([])


def test_deviations_are_pooled_by_degrees_of_freedom() -> None:
    assert pooled([(3, 1.0), (5, 2.0)]) == pytest.approx(math.sqrt((2 * 1 + 4 * 4) / 6))
    assert pooled([]) is None


def test_the_smallest_effect_is_found_in_four_of_five_experiments() -> None:
    effect = smallest_effect(2.0, 5)
    assert smallest_effect(1.0, 5) == pytest.approx(effect / 2)
    assert smallest_effect(1.0, 10) == pytest.approx(0.996, abs=0.002)  # d of G*Power's paired t test
    samples = np.random.default_rng(0).normal(effect, 2.0, (20_000, 5))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
    for deviation, n in ((1.0, 1), (0.0, 3), (math.nan, 3)):
        with pytest.raises(ValueError, match="expected two or more, and above 0"):
            smallest_effect(deviation, n)
