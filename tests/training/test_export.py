"""The export: its licence, a full disk, a signal just before it, and the averages that sheets are generated with."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.card import is_released
from janusflow.training.resume import Checkpoints
from tests.conftest import GOLDEN
from tests.training.conftest import TINYWORLD, quietly, settings


def test_what_is_trained_from_released_weights_carries_their_licence(start: Path, tmp_path: Path) -> None:
    data = {"understanding": TINYWORLD, "ratios": [{"understanding": 1, "generation": 0, "text": 0}], "workers": 0}
    changes = {"data": data, "steps": 1, "batch_size": 2, "loss": {"repa": 0.0}, "parts": ["aligner"]}
    released = quietly(settings(GOLDEN / "janusflow-small-a", tmp_path / "released", **changes))
    assert "license_name: deepseek" in (released / "README.md").read_text()
    own = quietly(settings(start, tmp_path / "own", **changes), official=True)
    assert ModelCard.load(own / "README.md").data.license == "unknown"
    layout = own.with_name("export-official")
    assert "license: unknown" in (layout / "README.md").read_text()
    assert not is_released(open_checkpoint(layout)) and open_checkpoint(layout).layout.name == "official"
    trained = JanusFlow.from_pretrained(layout, device="cpu").network.state_dict()
    for name, value in JanusFlow.from_pretrained(own, device="cpu").network.state_dict().items():
        assert torch.equal(trained[name], value), name
    quietly(settings(GOLDEN / "janusflow-small-a", tmp_path / "both", **changes), official=True)
    assert "license_name: deepseek" in (tmp_path / "both" / "export-official" / "README.md").read_text()


def test_sigterm_while_the_last_checkpoint_is_written_leaves_the_export_to_the_next(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Checkpoints.finish

    def told(checkpoints: Checkpoints) -> None:
        signal.raise_signal(signal.SIGTERM)
        finish(checkpoints)

    config = settings(start, tmp_path / "run", steps=2)
    monkeypatch.setattr(Checkpoints, "finish", told)
    assert quietly(config) == tmp_path / "run" and not (tmp_path / "run" / "export").exists()
    monkeypatch.undo()
    assert quietly(config, resume=True) == tmp_path / "run" / "export"


def test_a_disk_that_is_full_at_the_export(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("janusflow.training.export.save_file", full)
    with pytest.raises(OSError, match="the export could not be written .*No space left.*--resume writes it again"):
        quietly(settings(start, tmp_path, steps=2))
    assert not (tmp_path / "export").exists() and (tmp_path / "checkpoints" / "step-0000002").is_dir()
    monkeypatch.undo()
    assert quietly(settings(start, tmp_path, steps=2), resume=True) == tmp_path / "export"


def test_a_failure_in_the_official_layout_leaves_the_normal_export(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("janusflow.training.export.export_to", full)
    with pytest.raises(OSError, match="the export could not be written .*No space left"):
        quietly(settings(start, tmp_path, steps=1), official=True)
    assert JanusFlow.from_pretrained(tmp_path / "export", device="cpu").network is not None
    assert not (tmp_path / "export-official").exists()


@pytest.mark.parametrize("encoder", ["vae", "shared"])
def test_the_averages_of_a_network_that_reads_latents_answer_during_the_run(
    start: Path, tmp_path: Path, encoder: str
) -> None:
    watch = {"every": 1, "prompts": ["a star"], "questions": ["what is it?"], "num_inference_steps": 1}
    model = {"checkpoint": str(start), "understanding_encoder": encoder}
    watch |= {"tensorboard": False, "curves": False}
    quietly(settings(start, tmp_path, steps=1, model=model, watch=watch))
    assert (tmp_path / "samples" / "step-0000001.txt").read_text().startswith("what is it?")
