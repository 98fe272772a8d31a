"""The tiny world as a source of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from janusflow.tinyworld.checker import read
from janusflow.tinyworld.source import TinyworldConfig, TinyworldSource


def source_of(task: str, seed: int = 0, **settings: Any) -> TinyworldSource:
    return TinyworldConfig(**settings).open(task, seed, 0, 1)


@pytest.mark.parametrize("task", ["understanding", "generation", "text"])
def test_tinyworld_is_endless_and_a_function_of_number_and_seed(task: str) -> None:
    source, same, other = (source_of(task, seed) for seed in (0, 0, 1))
    for number in (0, 5, 10**9):
        record, again = source.record(number), same.record(number)
        assert (record.text, record.turns) == (again.text, again.turns)
        assert (record.text, record.turns) != (other.record(number).text, other.record(number).turns)
        if task != "text":
            assert read(np.asarray(record.images[0])).scene is not None
        assert source.length is None
    only = source_of("generation", shares={"counting": 1.0})
    numbers = ("two", "three", "four")
    assert all(any(word in only.record(n).text.lower() for word in numbers) for n in range(20))


def test_a_number_of_scenes_ends_the_source_after_the_same_records() -> None:
    endless, counted = source_of("generation"), source_of("generation", scenes=7)
    assert counted.length == 7
    assert [counted.record(n).text for n in range(7)] == [endless.record(n).text for n in range(7)]
