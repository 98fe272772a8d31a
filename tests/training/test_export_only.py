"""A run that was stopped exports its last checkpoint without training."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.cli import app
from janusflow.training import trainer
from janusflow.training.config import TrainConfig
from janusflow.training.export_only import export_only
from tests.training.conftest import curve, quietly, settings, weights
from tests.training.test_resume import said


def stopped(start: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> TrainConfig:
    """A run that SIGTERM ended after two steps of six."""
    config, step = settings(start, out, **changes), trainer.take_step

    def told(run: Any, found: Any) -> Any:
        if found.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(run, found)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "take_step", told)
        assert quietly(config) == out
    assert not (out / "export").exists()
    return config


def test_a_stopped_run_exports_its_last_checkpoint_without_training(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = {"rank": 2, "tower": True}
    config = stopped(start, tmp_path / "run", monkeypatch, lora=lora, ema=0.5, optimizer={"clip": float("inf")})
    assert f"or export this checkpoint with `janusflow train --export-only {tmp_path / 'run'}`" in said(capsys)
    (tmp_path / "run").rename(tmp_path / "moved")
    done = CliRunner().invoke(app, ["train", "--export-only", str(tmp_path / "moved"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.split()[-1]) == tmp_path / "moved" / "export"
    assert "25 % of the exported weights are still the starting weights" in done.stderr
    assert "| steps | 2 of 6: stopped early |" in (tmp_path / "moved" / "export" / "README.md").read_text()
    assert len(curve(tmp_path / "moved")) == 2
    quietly(replace(config, out=str(tmp_path / "moved"), steps=2), resume=True, official=True)
    same = weights(tmp_path / "moved" / "export")
    quietly(replace(config, out=str(tmp_path / "whole"), steps=2))
    for name, value in weights(tmp_path / "whole" / "export").items():
        assert torch.equal(same[name], value), name
    exported = export_only(tmp_path / "moved", device="cpu", official=True)
    assert weights(exported).keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in weights(exported).items())
    assert (tmp_path / "moved" / "export-official" / "config.json").is_file()


def test_an_export_needs_neither_the_data_nor_the_place_of_the_start(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "own" / "a.png")
    (tmp_path / "own" / "a.txt").write_text("a black picture")
    data = {"own": str(tmp_path / "own"), "own_share": 1.0, "workers": 0, "cache": str(tmp_path / "cache")}
    shutil.copytree(start, tmp_path / "begun")
    changes = {"data": data, "parts": ["llm"], "loss": {"repa": 0.0}, "samples": {"crop": "center"}}
    data["ratios"] = [{"understanding": 1, "generation": 1, "text": 0}]
    stopped(tmp_path / "begun", tmp_path / "run", monkeypatch, **changes)
    for folder in ("own", "cache", "begun"):
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(ValueError, match="begun.*; if what the run started from has moved, give model=FOLDER"):
        export_only(tmp_path / "run", device="cpu")
    words = ["train", "--export-only", str(tmp_path / "run"), f"model={start}", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert JanusFlow.from_pretrained(tmp_path / "run" / "export", device="cpu").network is not None
    assert not (tmp_path / "cache").exists()


def test_an_export_of_nothing_is_refused(start: Path, tmp_path: Path) -> None:
    for words, told in (
        (["--export-only", str(tmp_path / "none")], "contains no run of `janusflow train`"),
        (["--export-only", str(tmp_path), "--resume"], "takes neither --resume nor --dry-run"),
        ([], "no recipe is given; expected a YAML file"),
    ):
        done = CliRunner().invoke(app, ["train", *words])
        assert done.exit_code == 2 and told in done.stderr, done.stderr
    assert not (tmp_path / "none").exists()
    quietly(settings(start, tmp_path / "run", steps=1))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000001")
    with pytest.raises(ValueError, match="has no checkpoint yet to export"):
        export_only(tmp_path / "run", device="cpu")


def test_a_variant_is_refused_in_the_official_layout_before_anything_is_written(start: Path, tmp_path: Path) -> None:
    model = {"checkpoint": str(start), "understanding_encoder": "shared"}
    shutil.rmtree(quietly(settings(start, tmp_path, steps=1, model=model)))
    with pytest.raises(ValueError, match="understanding_encoder is 'shared'; the official layout only has 'siglip'"):
        export_only(tmp_path, device="cpu", official=True)
    assert not (tmp_path / "export").exists()
