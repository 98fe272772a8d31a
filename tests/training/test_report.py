"""What a run reports: losses and gradients, sheets of pictures and answers, TensorBoard, Weights & Biases."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import TINYWORLD, curve, quietly, settings, values


def test_losses_are_told_by_task_and_gradients_by_part(start: Path, tmp_path: Path) -> None:
    """Those of a task are what it has in a step of its own, and the parts' norms make up that of all."""
    both = {"understanding": TINYWORLD, "text": TINYWORLD, "workers": 0}
    alone = {task: {**both, "ratios": [{"understanding": 0, "generation": 0, "text": 0, task: 1}]} for task in both}
    del alone["workers"]
    for task, data in alone.items():
        quietly(settings(start, tmp_path / task, steps=1, data=data))
        (row,) = curve(tmp_path / task)
        assert row[f"ar_{task}"] == pytest.approx(row["ar"]) and sum(name.startswith("ar_") for name in row) == 1
    quietly(settings(start, tmp_path / "mixed", steps=2))
    for row in curve(tmp_path / "mixed"):
        low, high = sorted((row["ar_understanding"], row["ar_text"]))
        assert low < row["ar"] < high
        parts = [value for name, value in row.items() if name.startswith("gradient_")]
        assert len(parts) == 5 and sum(norm**2 for norm in parts) == pytest.approx(row["gradient"] ** 2)


def test_sheets_of_pictures_and_answers(start: Path, tmp_path: Path) -> None:
    watch = {"every": 2, "prompts": ["a star", "two"], "questions": ["what is it?"], "num_inference_steps": 1}
    quietly(settings(start, tmp_path / "seen", steps=4, watch={**watch, "tensorboard": True}))
    names = sorted(file.name for file in (tmp_path / "seen" / "samples").iterdir())
    assert names == ["step-0000002.png", "step-0000002.txt", "step-0000004.png", "step-0000004.txt"]
    told = EventAccumulator(str(tmp_path / "seen" / "tensorboard")).Reload()
    by_task = {"ar_understanding", "ar_text", "flow"}
    norms = {f"gradient_{part}" for part in ("aligner", "generation", "llm", "tower", "repa")}
    names = {"ar", "repa", "gradient", "rate", "tokens_per_second", "waited"}
    assert names | by_task | norms <= set(told.Tags()["scalars"])
    assert [event.value for event in told.Scalars("flow")] == pytest.approx(
        [row["flow"] for row in curve(tmp_path / "seen")]
    )
    assert [event.step for event in told.Images("samples")] == [2, 4]
    assert b"what is it?" in told.Tensors("answers/text_summary")[-1].tensor_proto.string_val[0]
    quietly(settings(start, tmp_path / "unseen", steps=4))
    assert values(tmp_path / "seen") == values(tmp_path / "unseen")  # looking changes nothing


@pytest.mark.parametrize("broken", ["contact_sheet", "averaged_model"])
def test_a_sheet_that_fails_does_not_end_the_run(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(f"janusflow.training.report.{broken}", full)
    watch = {"every": 2, "prompts": ["a star"], "num_inference_steps": 1, "tensorboard": False}
    quietly(settings(start, tmp_path, steps=3, watch=watch))
    assert "the sheet of step 2 could not be made: the disk is full" in capsys.readouterr().err
    assert len(curve(tmp_path)) == 3 and (tmp_path / "export").is_dir()


def test_weights_and_biases_is_told_the_same(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any, int]] = []
    ended: list[bool] = []

    def log(values: dict[str, Any], *, step: int) -> None:
        told.extend((name, value, step) for name, value in values.items())

    def init(**options: Any) -> SimpleNamespace:
        assert options["resume"] == "allow" and options["id"]
        return SimpleNamespace(log=log, finish=lambda: ended.append(True))

    fake = SimpleNamespace(init=init, Image=lambda sheet, caption: (sheet.size, caption), __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    watch = {"every": 2, "prompts": ["a star"], "questions": ["what is it?"], "num_inference_steps": 1, "wandb": True}
    quietly(settings(start, tmp_path, steps=2, watch={**watch, "tensorboard": False}))
    assert [value for name, value, step in told if name == "flow"] == [row["flow"] for row in curve(tmp_path)]
    assert [(step, value[1][:11]) for name, value, step in told if name == "samples"] == [(2, "what is it?")]
    assert ended
