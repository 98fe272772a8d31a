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
    only = source_of("generation", shares={"counting": 1.0})
    numbers = ("two", "three", "four")
    assert all(any(word in only.record(n).text.lower() for word in numbers) for n in range(20))
    paired = [source_of("generation", ordered=0.5).record(n) for n in range(40)]
    assert 10 < sum(bool(record.rewritten) for record in paired) < 30
    assert all(record.rewritten != record.text for record in paired)
    unnamed = [source_of("generation", unnamed=0.5).record(n) for n in range(40)]
    assert 10 < sum(bool(record.rewritten) for record in unnamed) < 30
    assert all(("shape" in record.text) == bool(record.rewritten) for record in unnamed)
    composed = [source_of("generation", shares={"single_object": 1}, composed=0.5).record(n) for n in range(60)]
    scenes = [read(np.asarray(record.images[0])).scene for record in composed]
    central = [abs(s.shapes[0].x - 32) <= 3 and abs(s.shapes[0].y - 32) <= 3 for s in scenes if s is not None]
    assert len(central) > 50 and 20 < sum(central) < 45
    clean, under = (source_of("understanding", spoiled=share) for share in (0.0, 0.5))
    pairs = [(clean.record(n), under.record(n)) for n in range(40)]
    assert all(a.turns == b.turns for a, b in pairs)
    assert 10 < sum(bool(np.any(np.asarray(a.images[0]) != np.asarray(b.images[0]))) for a, b in pairs) < 30
