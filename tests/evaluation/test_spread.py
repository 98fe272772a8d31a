"""Total variation over named bins."""

from __future__ import annotations

import pytest

from janusflow.evaluation.spread import OTHER, total_variation


@pytest.mark.parametrize(
    ("found", "wanted", "distance"),
    [
        ("aabb", {"a": 1, "b": 1}, 0),
        ("aaab", {"a": 1, "b": 1}, 0.25),
        ("aaaa", {"a": 1, "b": 1, "c": 2}, 0.75),
        ("cccc", {"a": 0.5, "b": 0.5}, 1),
        ("ab", {"a": 30, "b": 30}, 0),  # weights are scaled
    ],
)
def test_it_is_half_the_sum_of_differences(found: str, wanted: dict[str, float], distance: float) -> None:
    assert total_variation(found, wanted) == pytest.approx(distance)


def test_what_could_not_be_read_counts_against_it() -> None:
    assert total_variation(["a", "b", OTHER, OTHER], {"a": 1, "b": 1}) == 0.5


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 values"):
        total_variation([], {"a": 1})
