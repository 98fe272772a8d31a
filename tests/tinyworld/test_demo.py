"""The demonstration generates one of each kind, asks about it and a rendered picture, and says what was right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.tinyworld.captions import GENEVAL_KINDS
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.demo import TASKS, show
from janusflow.tinyworld.items import tasks


def test_it_paints_asks_and_judges(
    tiny_model: JanusFlow, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.tinyworld.demo.STEPS", 8)
    show(tiny_model, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert {task.kind for task in TASKS} == set(GENEVAL_KINDS)
    assert sum(line.startswith("generated '") for line in lines) == len(TASKS)
    for name in ("rendered", "generated"):
        asked = [line for line in lines if line.startswith(name) and not line.startswith("generated '")]
        assert len(asked) >= 3
    assert "pictures as asked" in lines[-1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 64 * 3
    for task in TASKS:
        with Image.open(tmp_path / f"{task.kind}.png") as picture:
            assert picture.size == (64, 64)
            assert picture.info["prompt"] == task.prompt


def test_the_shipped_model_paints_most_of_what_it_is_asked_for(tiny_model: JanusFlow) -> None:
    """A floor below the card, so that a broken loader, template or loop is seen."""
    asked = tasks("colors", 12, held_out=False, seed=5)
    prompts = [task.prompt for task in asked]
    pictures = tiny_model.generate(prompts, seed=list(range(12)), progress=False)
    right = [check(task, np.asarray(picture)).passed for task, picture in zip(asked, pictures, strict=True)]
    assert sum(right) >= 10
