"""A run survives kills and signals, and its workers end with it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from janusflow.training import trainer
from janusflow.training.config import TrainConfig
from tests.training.conftest import curve, quietly, settings, values, weights

KILLS, STEPS = 10, 48


def test_killed_ten_times_at_random_moments_it_continues_to_the_bit(start: Path, tmp_path: Path) -> None:
    """SIGKILL strikes anywhere, also while a checkpoint is being written: one is written after every step."""
    whole = quietly(settings(start, tmp_path / "whole", steps=STEPS, save={"every": STEPS}))
    config = settings(start, tmp_path / "killed", steps=STEPS, save={"every": 1})
    moments, killed = Random(0), 0
    context = multiprocessing.get_context("fork")
    (tmp_path / "killed").mkdir()
    caught_writing = 0
    while killed < KILLS or not caught_writing:
        assert killed < 4 * KILLS, "no kill came while a checkpoint was written"
        behind = killed % 2 == 1  # every second time checkpoints are written, and samples made, in the background
        saving, feeding = replace(config.save, background=behind), replace(config.data, workers=int(behind))
        one = replace(config, save=saving, data=feeding)
        life = context.Process(target=quietly, args=(one,), kwargs={"resume": True})
        life.start()
        time.sleep(moments.uniform(0.1, 0.9))
        if not life.is_alive():  # a quick machine: it ended before it was killed often enough, so once more
            assert life.exitcode == 0
            shutil.rmtree(tmp_path / "killed")
            (tmp_path / "killed").mkdir()
            continue
        os.kill(life.pid or 0, signal.SIGKILL)
        life.join()
        killed += 1
        caught_writing += bool(list((tmp_path / "killed").glob("checkpoints/*.tmp")))
    resumed = quietly(config, resume=True)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


def in_its_own_group(config: TrainConfig, slow: float) -> None:
    os.setsid()
    step = trainer.take_step

    def slowly(run: Any, found: Any) -> Any:
        time.sleep(slow * found.step)
        return step(run, found)

    trainer.take_step = slowly
    quietly(config)


def told(start: Path, tmp_path: Path, workers: int, signals: Sequence[int], slow: float = 0.0) -> int | None:
    """How a run ends, all of whose processes get these signals after its first step; the later ones may be slow."""
    config = settings(start, tmp_path / "told", steps=500, save={"every": 1000})
    config = replace(config, data=replace(config.data, workers=workers))
    life = multiprocessing.get_context("fork").Process(target=in_its_own_group, args=(config, slow))
    life.start()
    while not (tmp_path / "told" / "log.jsonl").is_file() or not curve(tmp_path / "told"):
        time.sleep(0.02)
    for number in signals:
        os.killpg(life.pid or 0, number)
        time.sleep(0.1)
    (tmp_path / "group").write_text(str(life.pid))
    life.join(40)
    return life.exitcode


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_to_all_its_processes_saves_and_ends(
    start: Path, tmp_path: Path, workers: int, number: int, status: int
) -> None:
    assert told(start, tmp_path, workers, [number]) == status
    done = len(curve(tmp_path / "told"))
    assert [path.name for path in (tmp_path / "told" / "checkpoints").iterdir()] == [f"step-{done:07d}"]


def test_a_second_interrupt_ends_it_at_once_with_its_workers(start: Path, tmp_path: Path) -> None:
    """Before the step at hand is done, without a checkpoint; and its whole group is gone."""
    assert told(start, tmp_path, 2, [signal.SIGINT] * 2, slow=20.0) == 1
    assert not list((tmp_path / "told").glob("checkpoints/*"))
    group = int((tmp_path / "group").read_text())
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers are left")


def waiting(tmp_path: Path) -> None:
    (tmp_path / "reached").touch()
    time.sleep(60)


@pytest.mark.parametrize("phase", ["open_model", "drawn_sources", "export"])
def test_sigterm_before_the_first_step_or_after_the_last_ends_well(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    config = settings(start, tmp_path / "told", steps=2)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, phase, lambda *args, **kwargs: waiting(tmp_path))
        life = multiprocessing.get_context("fork").Process(target=quietly, args=(config,))
        life.start()
        while not (tmp_path / "reached").exists():
            assert life.is_alive()
            time.sleep(0.02)
        os.kill(life.pid or 0, signal.SIGTERM)
        life.join(30)
    assert life.exitcode == 0
    assert (quietly(config, resume=phase == "export") / "model.safetensors").is_file()
