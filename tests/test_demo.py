"""The demonstration paints one of each kind, asks about a painted and a rendered picture, and says what was right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.demo import TASKS, show
from janusflow.tinyworld.captions import GENEVAL_KINDS
from janusflow.tinyworld.scenes import COLORS


def test_it_paints_asks_and_judges(tiny_model: JanusFlow, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tiny_model, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert {task.kind for task in TASKS} == set(GENEVAL_KINDS)
    assert sum(line.startswith("painted  '") for line in lines) == len(TASKS)
    for name in ("rendered", "painted"):
        asked = [line for line in lines if line.startswith(name) and not line.startswith("painted  '")]
        assert len(asked) >= 3
    assert "pictures as asked" in lines[-1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 64 * 3
    for task in TASKS:
        with Image.open(tmp_path / f"{task.kind}.png") as picture:
            assert picture.size == (64, 64)
            assert picture.info["prompt"] == task.prompt


def test_the_shipped_model_paints_the_color_that_it_is_asked_for(tiny_model: JanusFlow) -> None:
    """A floor far below what is wanted of it, so that a broken loader, template or loop is seen."""
    colors = ("red", "green", "blue")
    prompts = [f"a {color} circle" for color in colors]
    pictures = tiny_model.generate(prompts, num_images_per_prompt=3, seed=0, guidance_scale=4.0, progress=False)
    right = 0
    for index, picture in enumerate(pictures):
        pixels = np.asarray(picture, dtype=np.float32).reshape(-1, 3)
        # At 60 a slate background would count as green.
        near = [int((np.abs(pixels - COLORS[color]).max(axis=1) < 45).sum()) for color in colors]
        right += near[index // 3] > 20 and near[index // 3] == max(near)
    assert right >= 7
