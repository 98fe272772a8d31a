"""The train command with pictures, captions and conversations of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.cli import app
from janusflow.tinyworld.source import TinyworldConfig
from tests.training.conftest import curve, weights

RECIPES = Path(__file__).parents[2] / "recipes"


def own_folder(folder: Path) -> None:
    """Eight pictures with captions."""
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"red number {number}")


def test_ones_own_folder_through_the_command_line(start: Path, tmp_path: Path) -> None:
    own_folder(tmp_path / "own")
    words = ["train", str(RECIPES / "finetune" / "both.yaml"), f"model={start}", f"data={tmp_path / 'own'}"]
    words += [f"out={tmp_path / 'run'}", "batch_size=4", "data.workers=0", "watch.tensorboard=false", "--device", "cpu"]
    first = CliRunner().invoke(app, [*words, "steps=2"])
    assert first.exit_code == 0, first.output
    assert all(word in first.stderr for word in ("step 2 of 2: ar ", " flow ", "tokens/s", "waiting"))
    assert Path(first.stdout.split()[-1]) == tmp_path / "run" / "export"
    assert CliRunner().invoke(app, [*words, "steps=3"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "steps=3", "--resume", "--export", "official"]).exit_code == 0
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3]
    ours, official = (weights(tmp_path / "run" / name) for name in ("export", "export-official"))
    assert open_checkpoint(tmp_path / "run" / "export-official").layout.name == "official"
    assert torch.equal(official["language_model.model.norm.weight"], ours["language_model.norm.weight"])
    for name in ("export", "export-official"):
        JanusFlow.from_pretrained(tmp_path / "run" / name, device="cpu")


def test_captions_and_conversations_are_combined_through_the_command_line(start: Path, tmp_path: Path) -> None:
    own_folder(tmp_path / "own")
    for number in range(8):
        Image.new("RGB", (96, 64), (30 * number, 0, 0)).save(tmp_path / "own" / f"{number}.png")
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}, {"from": "human", "value": "sure?"}]
    (tmp_path / "talks.json").write_text(json.dumps([{"image": "own/1.png", "conversations": talk}] * 8))
    words = ["train", str(RECIPES / "finetune" / "both.yaml"), f"model={start}", "data.own_share=1"]
    words += [f"data=[{tmp_path / 'own'},{tmp_path / 'talks.json'}]", "batch_size=4", "data.workers=0"]
    words += ["watch.tensorboard=false", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "steps=3", f"out={tmp_path / 'whole'}"])
    told = " ".join(done.stderr.split())
    assert done.exit_code == 0, done.output
    assert "own (8 records), " in told and "talks.json (8 records)" in told
    assert "conversation ends with a user turn; that turn was dropped (others" in told
    assert "which leaves out 33% of their area (mean of step 1); crop=pad keeps them whole" in told
    rows = curve(tmp_path / "whole")
    assert all(row["cropped"] == pytest.approx(1 / 3) for row in rows) and any("notes" in row for row in rows)
    for steps in (2, 3):
        again = CliRunner().invoke(app, [*words, f"steps={steps}", f"out={tmp_path / 'parts'}", "--resume"])
        assert again.exit_code == 0, again.output
    assert [row["loss"] for row in curve(tmp_path / "parts")][2] == rows[2]["loss"]
    padded = CliRunner().invoke(app, [*words, "steps=1", "crop=pad", f"out={tmp_path / 'padded'}"])
    assert padded.exit_code == 0 and "leaves out" not in padded.stderr


@pytest.mark.parametrize("name", ["understanding", "generation"])
def test_the_other_recipes_for_ones_own_folder(start: Path, tmp_path: Path, name: str) -> None:
    own_folder(tmp_path / "own")
    words = ["train", str(RECIPES / "finetune" / f"{name}.yaml"), f"model={start}", f"data={tmp_path / 'own'}"]
    words += [f"out={tmp_path / 'run'}", "batch_size=4", "data.workers=0", "steps=2", "watch.tensorboard=false"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    before, after = weights(start), weights(tmp_path / "run" / "export")
    changed = {part.split(".")[0] for part, value in after.items() if not torch.equal(value, before[part])}
    assert ("generation_decoder" in changed) == (name == "generation")
    assert "language_model" in changed


@pytest.mark.parametrize("name", ["both", "understanding", "generation"])
def test_the_tiny_world_is_not_mixed_into_models_of_other_pictures(
    start: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path / "own")
    recipe, given = str(RECIPES / "tiny" / f"finetune_{name}.yaml"), [f"model={start}", f"data={tmp_path / 'own'}"]
    given += [f"out={tmp_path / 'run'}"]
    monkeypatch.setattr(TinyworldConfig, "image_size", 48)
    for more in (["--dry-run"], []):
        refused = CliRunner().invoke(app, ["train", recipe, *given, *more])
        assert refused.exit_code == 2 and "64 pixels a side and tinyworld of 48; give " in refused.output
    assert CliRunner().invoke(app, ["train", recipe, *given, "data.own_share=1", "--dry-run"]).exit_code == 0
