"""Regions of pictures: read from rows, cropped, refused."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from janusflow.data.records import MalformedError, read_row
from janusflow.data.regions import Region
from janusflow.tinyworld.captions import sample_pair
from janusflow.tinyworld.scenes import UNITS, render
from janusflow.tinyworld.source import regions_of


def row(regions: Any) -> dict[str, Any]:
    return {"image": "a.png", "text": "a star", "regions": regions}


def test_a_row_may_have_regions() -> None:
    record = read_row(row([{"text": " a red star ", "box": [0, 0.25, 0.5, 1]}]), "rows.jsonl:1", Path())
    assert record.regions == (Region("a red star", 0, 0.25, 0.5, 1),)
    assert (
        read_row(row(None), "rows.jsonl:1", Path()).regions == read_row(row([]), "rows.jsonl:1", Path()).regions == ()
    )


def test_a_text_that_no_tokenizer_accepts_costs_the_record() -> None:
    with pytest.raises(MalformedError, match="surrogates not allowed"):
        read_row(row([{"text": "\ud800", "box": [0, 0, 1, 1]}]), "rows.jsonl:1", Path())


@pytest.mark.parametrize(
    "regions",
    [
        "a star",
        ["a star"],
        [{"text": "a star"}],
        [{"text": "", "box": [0, 0, 1, 1]}],
        [{"text": "a star", "box": [0, 0, 1]}],
        [{"text": "a star", "box": [0.5, 0, 0.5, 1]}],
        [{"text": "a star", "box": [0, 0, 64, 64]}],
        [{"text": "a star", "box": [0, 0, 1, float("nan")]}],
        [{"text": "a star", "box": [0, 0, 1, True]}],
    ],
)
def test_malformed_regions_cost_the_record(regions: Any) -> None:
    with pytest.raises(MalformedError, match="malformed region"):
        read_row(row(regions), "rows.jsonl:1", Path())


def test_regions_are_cropped_to_the_centered_square() -> None:
    assert Region("a", 0, 0, 1, 1).cropped(200, 100) == Region("a", 0, 0, 1, 1)
    assert Region("a", 0.25, 0.5, 0.5, 1).cropped(200, 100) == Region("a", 0, 0.5, 0.5, 1)
    assert Region("a", 0, 0, 0.25, 1).cropped(200, 100) is None
    assert Region("a", 0, 0.5, 1, 0.75).cropped(100, 200) == Region("a", 0, 0.5, 1, 1)


def test_shapes_of_a_scene_fill_their_regions() -> None:
    for number in range(50):
        scene = sample_pair(Random(number), "two_object")[1]
        pixels = render(scene).astype(int)
        for shape, region in zip(scene.shapes, regions_of(scene), strict=True):
            assert shape.kind in region.text and shape.color in region.text and shape.size in region.text
            left, top, right, bottom = (
                round(side * UNITS) for side in (region.left, region.top, region.right, region.bottom)
            )
            own = np.abs(pixels - np.array(shape.rgb)).max(axis=2) < 3
            inside = own[top:bottom, left:right].sum()
            assert inside >= 0.9 * own.sum() or sum(other.color == shape.color for other in scene.shapes) > 1
