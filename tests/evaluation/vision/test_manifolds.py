"""Kernel distance, recall and coverage on sets whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from janusflow.evaluation.vision.manifolds import coverage, kernel_distance, kernel_interval, recall

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(400, 16)), RNG.normal(size=(400, 16))


def test_the_distance_of_two_sets_of_one_distribution_is_about_zero_and_within_its_interval() -> None:
    value, (low, high) = kernel_interval(A, B)
    assert abs(value) < 0.02 and low <= 0 <= high
    assert value == pytest.approx(kernel_distance(A, B))


def test_the_distance_is_unbiased() -> None:
    values = [kernel_distance(*RNG.normal(size=(2, 10, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20  # with the diagonals it is 0.7


def test_the_distance_of_a_shift_is_that_of_the_kernel() -> None:
    points, shift = np.zeros((3, 2)), np.full((4, 2), 1.0)  # k(0, 0) = 1, k(1, 1) = (1 + 1)^3, k(0, 1) = 1
    assert kernel_distance(points, shift) == pytest.approx(1 + 8 - 2)
    assert kernel_distance(A, B + 1) > kernel_distance(A, B + 0.5) > 0.1


def test_the_interval_has_the_width_that_repeated_draws_have() -> None:
    draws = [kernel_distance(RNG.normal(size=(200, 8)), RNG.normal(size=(200, 8)) + 0.5) for _ in range(100)]
    _, (low, high) = kernel_interval(RNG.normal(size=(200, 8)), RNG.normal(size=(200, 8)) + 0.5)
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(draws), rel=0.35)


def test_recall_and_coverage_see_half_of_two_clusters() -> None:
    real = np.concatenate([A, A + 100])
    for score in (recall, coverage):
        assert score(real, B) == pytest.approx(score(A, B) / 2)
        assert score(A, A) == 1 and score(A, B + 100) == 0


def test_recall_of_points_on_a_line_is_by_the_third_neighbor() -> None:
    made = np.array([[0.0], [1], [2], [3]])  # radii 3, 2, 2, 3
    assert recall(np.array([[-3.0], [-3.1], [6.0], [6.1]]), made) == 0.5
    assert coverage(made, np.array([[4.9], [9]])) == 0.25  # 3 is 1.9 from 4.9, and 2 is 2.9


def test_sets_of_other_widths_or_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="of one width"):
        kernel_distance(A, B[:, :4])
    with pytest.raises(ValueError, match="expected 4 rows"):
        recall(A, B[:3])
