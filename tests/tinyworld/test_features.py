"""Features of pictures do not depend on the batch that they are computed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.evaluation.protocol import Row
from janusflow.tinyworld import features
from janusflow.tinyworld.benchmark import TinyWorld, WorldSettings


def test_features_of_many_pictures_are_those_of_each_in_the_rows_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 3)
    found = TinyWorld(None, WorldSettings(prompts=1, images=1, questions=0))
    found.out = tmp_path
    rows = [Row(item, f"{n}.png", {"score": 1}) for n, item in enumerate(found.items()) if found.drawn(item)]
    for number, row in enumerate(rows):
        Image.effect_noise((64, 64), 4 + 10 * number).convert("RGB").save(tmp_path / row.output)
    known = found._features
    for picture_of in (lambda row: tmp_path / row.output, None):
        each = [known.of([row], picture_of) for row in rows]
        known._known.clear()
        together = known.of(rows, picture_of)
        assert np.allclose(together, np.concatenate(each), atol=1e-5)
        assert np.array_equal(known.of([rows[4], rows[0], rows[4]], picture_of), together[[4, 0, 4]])
        assert np.linalg.norm(together[0] - together[1]) > 0.1
    other = tmp_path / "other"  # another run with the same items: `compare` opens both with one benchmark
    other.mkdir()
    Image.effect_noise((64, 64), 4 + 10 * 9).convert("RGB").save(other / rows[0].output)
    again = [known.of(rows[:1], lambda row, folder=folder: folder / row.output) for folder in (tmp_path, other)]
    assert np.linalg.norm(again[0] - again[1]) > 0.1
