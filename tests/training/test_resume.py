"""A run continues as if nothing had happened, or says why it cannot."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from traceback import StackSummary
from typing import Any

import pytest
import torch
from PIL import Image
from torch.distributed.checkpoint.api import CheckpointException

from janusflow.data.loader import Data, StepSamples
from janusflow.data.mixture import TASKS
from janusflow.training import resume as resuming
from janusflow.training import trainer
from janusflow.training.step import TrainState
from janusflow.training.stored_settings import changed_settings, stored_config, write_settings
from janusflow.training.trainer import RunError
from tests.training.conftest import OFTEN, TINYWORLD, BreakingFile, curve, quietly, settings, values, weights


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said since it was last asked, on one line."""
    return " ".join(capsys.readouterr().err.split())


def test_a_run_is_not_overwritten_and_resumes_when_asked(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quietly(settings(start, tmp_path / "parts", steps=3))
    with pytest.raises(ValueError, match="contains a run already; continue it with --resume"):
        quietly(settings(start, tmp_path / "parts"))
    resumed = quietly(settings(start, tmp_path / "parts"), resume=True)
    assert "settings have changed since the run was last started, so it may train differently: steps 3 -> 6" in said(
        capsys
    )
    whole = quietly(settings(start, tmp_path / "whole"))
    assert "settings changed" not in said(capsys)
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


@pytest.mark.parametrize("task", ["understanding", "generation", "text"])
def test_a_run_of_one_task_alone_resumes_to_the_bit(start: Path, tmp_path: Path, task: str) -> None:
    ratio = {"understanding": 0, "generation": 0, "text": 0, task: 1}
    data = {task: TINYWORLD, "ratios": [ratio], "workers": 0}
    quietly(settings(start, tmp_path / "parts", steps=2, data=data))
    quietly(settings(start, tmp_path / "parts", data=data), resume=True)
    quietly(settings(start, tmp_path / "whole", data=data))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_adapters_begin_alike_and_resume_to_the_bit(start: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "dropout": 0.3, "tower": True}
    quietly(settings(start, tmp_path / "parts", steps=2, lora=lora))
    quietly(settings(start, tmp_path / "parts", steps=4, lora=lora), resume=True)
    torch.rand(7)
    quietly(settings(start, tmp_path / "whole", steps=4, lora=lora))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_a_decay_that_warms_up_resumes_to_the_bit(start: Path, tmp_path: Path) -> None:
    options = {"ema": 0.99, "ema_warmup": True}
    quietly(settings(start, tmp_path / "parts", steps=2, **options))
    resumed = quietly(settings(start, tmp_path / "parts", steps=4, **options), resume=True)
    whole = quietly(settings(start, tmp_path / "whole", steps=4, **options))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    shares = [[row["start_share"] for row in curve(tmp_path / name)] for name in ("parts", "whole")]
    assert shares[0] == shares[1] and shares[0][-1] < 0.002
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name
    progress = tmp_path / "parts" / "checkpoints" / "step-0000004" / "progress.json"
    without = {name: value for name, value in json.loads(progress.read_text()).items() if name != "start_share"}
    progress.write_text(json.dumps(without))  # as earlier versions wrote it, which had no checksums either
    (progress.parent / "checksums.json").unlink()
    quietly(settings(start, tmp_path / "parts", steps=5, **options), resume=True)
    assert curve(tmp_path / "parts")[-1]["start_share"] == pytest.approx(shares[0][-1] * 5 / 14)


def test_with_muon_it_resumes_to_the_bit(start: Path, tmp_path: Path) -> None:
    optimizer = {"name": "muon", "learning_rate": 1e-3}
    quietly(settings(start, tmp_path / "parts", steps=2, optimizer=optimizer))
    quietly(settings(start, tmp_path / "parts", steps=4, optimizer=optimizer), resume=True)
    quietly(settings(start, tmp_path / "whole", steps=4, optimizer=optimizer))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    quietly(settings(start, tmp_path / "adamw", steps=4, optimizer={"learning_rate": 1e-3}))
    assert values(tmp_path / "adamw") != values(tmp_path / "whole")


def test_a_checkpoint_of_another_run_is_refused_in_one_sentence(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path, steps=2, parts=["aligner", "generation"]))
    with pytest.raises(ValueError, match="step-0000002 does not fit this run.*Missing key"):
        quietly(settings(start, tmp_path), resume=True)


def test_a_checkpoint_that_cannot_be_read_says_what_to_do(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path, steps=4, save=OFTEN))
    for file in (tmp_path / "checkpoints" / "step-0000004").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match="step-0000004 is damaged .*without that folder .* from step-0000002") as told:
        quietly(settings(start, tmp_path), resume=True)
    assert len(str(told.value)) < 400 and "FrameSummary" not in str(told.value)
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000004")
    quietly(settings(start, tmp_path), resume=True)
    assert len(curve(tmp_path)) == 6


def test_ctrl_c_while_a_checkpoint_is_read_says_nothing_about_the_checkpoint(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch wraps it in an error of its own."""
    quietly(settings(start, tmp_path, steps=2))

    def stopped(*args: Any, **options: Any) -> None:
        raise CheckpointException("reading", {0: (KeyboardInterrupt(), StackSummary())})

    monkeypatch.setattr(resuming.dcp, "load", stopped)
    with pytest.raises(KeyboardInterrupt):
        quietly(settings(start, tmp_path), resume=True)


def test_a_run_whose_data_has_changed_is_not_resumed_silently(start: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (64, 64), (80 * index, 0, 0)).save(pictures / f"{index}.png")
        (pictures / f"{index}.txt").write_text(f"picture {index}")
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    data = {"generation": [{"kind": "folder", "path": str(pictures)}], "ratios": ratios, "workers": 0}
    quietly(settings(start, tmp_path / "run", data=data, steps=2))
    quietly(settings(start, tmp_path / "run", data=data, steps=3), resume=True)
    Image.new("RGB", (64, 64)).save(pictures / "new.png")
    (pictures / "new.txt").write_text("another")
    with pytest.raises(ValueError, match=r"the data has changed .*6 files of \d+ bytes, now 8 files"):
        quietly(settings(start, tmp_path / "run", data=data, steps=4), resume=True)
    contents = tmp_path / "run" / "data.json"
    before = contents.read_text()
    contents.write_text("[]")
    with pytest.raises(ValueError, match=r"data.json is damaged: .*; delete it to resume without comparing the data"):
        quietly(settings(start, tmp_path / "run", data=data, steps=4), resume=True)
    contents.write_text(before)
    accepted = settings(start, tmp_path / "run", data={**data, "allow_changes": True}, steps=4)
    quietly(accepted, resume=True)
    quietly(
        settings(start, tmp_path / "run", data=data, steps=5), resume=True
    )  # what was accepted is known from then on


def test_changed_settings_of_the_optimizer_hold_from_there_on(start: Path, tmp_path: Path) -> None:
    shrinking = {"learning_rate": 1e-3, "weight_decay": 100.0}
    quietly(settings(start, tmp_path / "run", steps=2, save={"every": 1}))
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    plain = weights(quietly(settings(start, tmp_path / "run", steps=3), resume=True))
    shrunk = weights(quietly(settings(start, tmp_path / "other", steps=3, optimizer=shrinking), resume=True))
    name = "language_model.layers.0.mlp.up_proj.weight"
    assert shrunk[name].norm() < 0.9995 * plain[name].norm()


def test_another_weight_of_a_loss_is_no_spike(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.training.trainer.CALM_STEPS", 0)
    quietly(settings(start, tmp_path / "run", steps=2, spike=3))
    quietly(settings(start, tmp_path / "run", steps=3, spike=3, loss={"flow": 50.0, "repa_block": 2}), resume=True)


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path / "run", steps=500, save={"every": 1000})
    life = multiprocessing.get_context("fork").Process(target=quietly, args=(config,))
    life.start()
    while not (tmp_path / "run" / "log.jsonl").is_file() or not curve(tmp_path / "run"):
        assert life.is_alive()
        time.sleep(0.02)
    half = tmp_path / "run" / "checkpoints" / "step-0000777.tmp"
    half.mkdir(parents=True)
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"another process is training in {tmp_path / 'run'}; wait until it ends"):
            quietly(config, resume=resume)
    assert half.is_dir()
    os.kill(life.pid or 0, signal.SIGTERM)
    life.join(40)
    assert life.exitcode == 0
    quietly(settings(start, tmp_path / "run", steps=len(curve(tmp_path / "run")) + 1), resume=True)
    assert not half.exists()


def test_settings_of_an_older_version_are_read(start: Path, tmp_path: Path) -> None:
    """They had every setting of every kind for each source."""
    config = settings(start, tmp_path)
    write_settings(tmp_path, config)
    kept = json.loads((tmp_path / "settings.json").read_text())
    for task in TASKS:
        kept["data"][task] = [{**one, "split": "train", "images": 960, "judge": ""} for one in kept["data"][task]]
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    assert stored_config(tmp_path) == config and not changed_settings(tmp_path, config)


@pytest.mark.parametrize("busy", ["", "with a step", "with a checkpoint"])
def test_a_data_worker_that_is_killed_leaves_a_run_that_can_be_resumed(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    original, take_step, save = Data.__getitem__, trainer.take_step, torch.save

    def killed(data: Data, step: int) -> StepSamples:
        if step == 3 and not busy:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(data, step)

    def kill_in_step(state: TrainState, samples: StepSamples) -> dict[str, float]:
        if samples.step == 3:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
        return take_step(state, samples)

    def kill_in_write() -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
            time.sleep(60)  # until torch's signal handler raises

    ratios = [{"understanding": 2, "generation": 3, "text": 1}]
    data = {**dict.fromkeys(TASKS, TINYWORLD), "ratios": ratios, "workers": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Data, "__getitem__", killed)
        if busy == "with a step":
            patch.setattr(trainer, "take_step", kill_in_step)
        if busy == "with a checkpoint":
            quietly(settings(start, tmp_path / "run", data=data, save={"every": 1}, steps=2))
            patch.setattr(torch, "save", lambda content, file: save(content, BreakingFile(file, kill_in_write)))
        with pytest.raises(
            RunError, match=r"a data worker was killed.*continue with fewer workers \(now 1; .*\); .*intact"
        ) as told:
            quietly(settings(start, tmp_path / "run", data=data, save={"every": 1}), resume=busy == "with a checkpoint")
    assert "\n" not in str(told.value)
    quietly(settings(start, tmp_path / "run", data=data, save={"every": 1}), resume=True)
    quietly(settings(start, tmp_path / "whole", data=data))
    assert values(tmp_path / "run") == values(tmp_path / "whole")
