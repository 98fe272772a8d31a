"""A run that cannot go on stops with the step, the reason and the checkpoint to resume from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.data.loader import Data
from janusflow.training import trainer
from janusflow.training.resume import Checkpoints
from janusflow.training.trainer import RunError, take_step
from tests.training.conftest import OFTEN, curve, quietly, settings, values


def test_a_loss_that_is_not_finite_stops_the_run(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Data.__getitem__

    def poisoned(self: Data, step: int) -> Any:
        found = original(self, step)
        if step == 4:
            for sample in found.samples:
                if sample.drawn is not None:
                    sample.drawn.noise.fill_(float("nan"))
        return found

    monkeypatch.setattr(Data, "__getitem__", poisoned)
    with pytest.raises(RunError, match="step 5: loss nan.*; the last checkpoint, step-0000004, is intact"):
        quietly(settings(start, tmp_path / "run", save=OFTEN))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-0000002", "step-0000004"]
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3, 4, 5]  # the log shows what went wrong
    assert curve(tmp_path / "run")[-1]["loss"] is None
    monkeypatch.undo()
    quietly(settings(start, tmp_path / "run", save=OFTEN), resume=True)
    quietly(settings(start, tmp_path / "whole"))
    assert values(tmp_path / "run") == values(tmp_path / "whole")


def test_a_run_that_fails_before_its_first_checkpoint_says_so(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "take_step", lambda run, found: {**take_step(run, found), "loss": float("inf")})
    with pytest.raises(RunError, match="step 1: loss inf.*; there is no checkpoint yet"):
        quietly(settings(start, tmp_path))


def test_an_error_of_another_kind_loses_no_checkpoint_that_is_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Any, found: Any) -> Any:
        if found.step == 3:
            raise RuntimeError("out of memory")
        return take_step(run, found)

    monkeypatch.setattr(trainer, "take_step", fail)
    monkeypatch.setattr(Checkpoints, "settle", lambda checkpoints: None)
    with pytest.raises(RuntimeError, match="out of memory"):
        quietly(settings(start, tmp_path, save={"every": 2, "background": True}))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]


def test_a_jump_of_the_loss_stops_the_run(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Data.__getitem__

    def loud(self: Data, step: int) -> Any:
        found = original(self, step)
        for sample in found.samples if step in (3, 22) else ():
            if sample.drawn is not None:
                sample.drawn.noise.mul_(100)
        return found

    monkeypatch.setattr(Data, "__getitem__", loud)
    with pytest.raises(RunError, match="step 23: loss .* is more than 10 times its mean"):
        quietly(settings(start, tmp_path, steps=25))


def test_too_many_broken_records_stop_the_run(start: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    rows = [{"image": "good.png" if n % 4 else f"missing-{n}.png", "text": "a black picture"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data: dict[str, Any] = {"generation": [{"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}], "workers": 0}
    data["ratios"] = [{"understanding": 0, "generation": 1, "text": 0}]
    config = settings(start, tmp_path / "run", data={**data, "max_broken": 0.1}, steps=20)
    with pytest.raises(
        RunError, match=r"of 5\d records that were taken are broken .*, more than data.max_broken=0.1; .*missing"
    ):
        quietly(config)
    told = [row for row in curve(tmp_path / "run") if "broken" in row]
    assert told and all(row["broken"] == len(row["skipped"]) and "missing" in row["skipped"][0] for row in told)
    quietly(settings(start, tmp_path / "lenient", data={**data, "max_broken": 0.9}, steps=10))
