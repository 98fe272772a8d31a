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


@pytest.mark.parametrize("variant", [{"understanding_encoder": "shared"}, {"image_attention": "bidirectional"}])
def test_a_variant_that_the_official_layout_cannot_store_is_refused_before_the_first_step(
    start: Path, tmp_path: Path, variant: dict[str, str]
) -> None:
    config = settings(start, tmp_path, steps=1, model={"checkpoint": str(start), **variant})
    (name,) = variant
    with pytest.raises(ValueError, match=f"{name} is '.*'; the official layout only has"):
        quietly(config, official=True)
    assert not (tmp_path / "log.jsonl").exists() and not (tmp_path / "checkpoints").exists()


def test_a_loss_is_compared_with_its_own_mean_and_only_in_steps_that_have_it(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, dict[str, float]] = {21: {"ar": 5.0}, 23: {"flow": 1.0}}

    def recorded(run: Any, found: Any) -> dict[str, float]:
        others = {name: value for name, value in take_step(run, found).items() if name not in ("ar", "flow", "repa")}
        return {**others, **given.get(found.step, {"flow": 0.05})}

    monkeypatch.setattr(trainer, "take_step", recorded)
    with pytest.raises(RunError, match="step 24: loss 1 is more than 10 times its mean 0.05"):
        quietly(settings(start, tmp_path, steps=25, batch_size=1))
