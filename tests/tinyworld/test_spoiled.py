"""Spoiled pictures: functions of their random numbers, from nearly clean ones to tiles alone."""

from __future__ import annotations

from random import Random

import numpy as np

from janusflow.tinyworld.spoiled import TILES, spoil


def test_spoiled_pictures_go_from_a_breath_to_tiles_alone() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    shown = []  # of a picture, in what is made of it
    for seed in range(200):
        under, over = spoil(Random(seed), black), spoil(Random(seed), white)
        assert np.array_equal(under, spoil(Random(seed), black))
        assert under.shape == (64, 64, 3) and under.dtype == np.uint8
        shown.append(float((over.astype(int) - under).mean()) / 255)
        columns = 1 + int(np.any(under[:, 1:] != under[:, :-1], axis=(0, 2)).sum())
        assert columns <= TILES[1]
        if shown[-1] == 0:
            assert columns >= TILES[0]
    assert max(shown) > 0.95
    assert 0.2 < np.mean(np.array(shown) == 0) < 0.5
    assert np.ptp([share for share in shown if share > 0]) > 0.9
