"""The demonstration paints one of each kind, asks about a painted and a rendered picture, and says what was right."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.demo import TASKS, show
from janusflow.tinyworld.captions import GENEVAL_KINDS


def test_it_paints_asks_and_judges(tiny_model: JanusFlow, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tiny_model, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert {task.kind for task in TASKS} == set(GENEVAL_KINDS)
    assert sum(line.startswith("painted  '") for line in lines) == len(TASKS)
    for name in ("rendered", "painted"):
        assert sum(line.startswith(name) and "?" in line for line in lines) >= 3
    assert "pictures as asked" in lines[-1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 64 * 3
    for task in TASKS:
        with Image.open(tmp_path / f"{task.kind}.png") as picture:
            assert picture.size == (64, 64)
            assert picture.info["prompt"] == task.prompt


def test_the_shipped_model_draws_and_answers_most_of_it(
    tiny_model: JanusFlow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(tiny_model, tmp_path)
    words = capsys.readouterr().out.splitlines()[-1].split()
    right, answers, asked = int(words[0]), int(words[6]), int(words[8])
    assert right >= 4
    assert answers >= 0.7 * asked
