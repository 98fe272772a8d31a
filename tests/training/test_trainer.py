"""The loop: it learns, it survives, and it does not matter how many processes share the work."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.data.loader import Data
from janusflow.training import resume as resume_module
from janusflow.training.config import OptimizerConfig, TrainConfig
from janusflow.training.trainer import RunError, rate, train
from tests.training.conftest import TINYWORLD, settings

LOSSES = ("ar", "flow", "repa", "loss", "gradient")
KILLS = 20


def curve(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def values(out: Path) -> list[tuple[float, ...]]:
    return [tuple(row[name] for name in ("step", *LOSSES)) for row in curve(out)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def quietly(config: TrainConfig, **options: Any) -> Path:
    return train(config, device="cpu", progress_bar=False, **options)


def test_it_learns_and_the_export_opens(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path, steps=40, batch_size=12, optimizer={"learning_rate": 3e-3}, ema=0.9)
    folder = quietly(config)
    rows = curve(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 41))
    for name, share in (("ar", 0.75), ("flow", 1.0), ("repa", 0.5)):
        first, last = (sum(row[name] for row in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last < share * first if first > 0 else last < first
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert model.generate("a star", num_inference_steps=1)[0].size == (64, 64)
    assert isinstance(model.ask("what color is the star?", model.generate("a star", num_inference_steps=1)), str)


def test_only_the_chosen_parts_learn(start: Path, tmp_path: Path) -> None:
    folder = quietly(settings(start, tmp_path, parts=["aligner", "generation"], steps=2))
    before, after = weights(start), weights(folder)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(
        name.startswith(("generation_", "understanding_encoder.aligner", "understanding_encoder.begin"))
        for name in moved
    )


def test_a_run_is_not_overwritten_and_resumes_when_asked(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path / "parts", steps=3))
    with pytest.raises(ValueError, match="holds a run already; continue it with --resume"):
        quietly(settings(start, tmp_path / "parts"))
    resumed = quietly(settings(start, tmp_path / "parts"), resume=True)
    whole = quietly(settings(start, tmp_path / "whole"))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


def test_killed_twenty_times_at_random_moments_it_continues_to_the_bit(start: Path, tmp_path: Path) -> None:
    """SIGKILL strikes anywhere, also while a checkpoint is being written: one is written after every step."""
    whole = quietly(settings(start, tmp_path / "whole", steps=150, save={"every": 150}))
    config = settings(start, tmp_path / "killed", steps=150, save={"every": 1})
    moments, killed = Random(0), 0
    context = multiprocessing.get_context("fork")
    (tmp_path / "killed").mkdir()
    caught_writing = 0
    while killed < KILLS:
        life = context.Process(target=quietly, args=(config,), kwargs={"resume": True})
        life.start()
        time.sleep(moments.uniform(0.1, 1.0))
        if not life.is_alive():  # a quick machine: it ended before it was killed often enough, so once more
            assert life.exitcode == 0
            shutil.rmtree(tmp_path / "killed")
            (tmp_path / "killed").mkdir()
            continue
        os.kill(life.pid or 0, signal.SIGKILL)
        life.join()
        killed += 1
        caught_writing += bool(list((tmp_path / "killed").glob("checkpoints/*.tmp")))
    assert caught_writing > 0
    resumed = quietly(config, resume=True)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


def in_its_own_group(config: TrainConfig) -> None:
    os.setsid()
    quietly(config)


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_to_all_its_processes_saves_and_ends_well(start: Path, tmp_path: Path, workers: int) -> None:
    config = settings(start, tmp_path / "told", steps=500, save={"every": 1000})
    config = replace(config, data=replace(config.data, workers=workers))
    life = multiprocessing.get_context("fork").Process(target=in_its_own_group, args=(config,))
    life.start()
    while not (tmp_path / "told" / "log.jsonl").is_file() or not curve(tmp_path / "told"):
        time.sleep(0.02)
    os.killpg(life.pid or 0, signal.SIGTERM)
    life.join(30)
    assert life.exitcode == 0
    done = len(curve(tmp_path / "told"))
    assert [path.name for path in (tmp_path / "told" / "checkpoints").iterdir()] == [f"step-{done:07d}"]


def test_checkpoints_are_pruned_but_the_best_and_the_last_stay(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path, steps=10, save={"every": 1, "keep": 2}))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    best = json.loads((tmp_path / "checkpoints" / kept[-1] / "progress.json").read_text())["best"][1]
    assert set(kept) == {"step-0000009", "step-0000010", f"step-{best:07d}"}


def test_a_disk_that_is_full_leaves_the_last_checkpoint(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = resume_module.dcp.save, 0

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            (Path(kwargs["checkpoint_id"]) / "half").write_text("half")
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(resume_module.dcp, "save", full)
    with pytest.raises(OSError, match="step-0000004 could not be written .*No space left.* before it is intact"):
        quietly(settings(start, tmp_path))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
    monkeypatch.undo()
    quietly(settings(start, tmp_path), resume=True)
    assert len(curve(tmp_path)) == 6


def test_a_checkpoint_in_the_background_holds_the_step_it_began_at(start: Path, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> None:
        quietly(settings(start, tmp_path / name, **changes))

    run("plain", steps=4)
    run("background", steps=4, save={"every": 2, "background": True})
    names = ["step-0000002", "step-0000004"]
    assert sorted(path.name for path in (tmp_path / "background" / "checkpoints").iterdir()) == names
    assert values(tmp_path / "background") == values(tmp_path / "plain")
    # Continued from the middle: had later steps leaked into the copy, the curve would differ.
    for name in ("plain", "background"):
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-0000004")
        quietly(settings(start, tmp_path / name, save={"every": 2, "background": name == "background"}), resume=True)
    assert values(tmp_path / "background") == values(tmp_path / "plain")


def test_a_full_disk_in_the_background_is_told_at_the_next_checkpoint(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(OSError(28, "No space left on device"))
        return future

    monkeypatch.setattr(resume_module.dcp, "async_save", full)
    with pytest.raises(OSError, match="step-0000002 could not be written .*No space left"):
        quietly(settings(start, tmp_path, save={"every": 2, "background": True}))
    assert not list((tmp_path / "checkpoints").iterdir())
    assert len(curve(tmp_path)) >= 3


def test_a_disk_that_is_full_while_a_checkpoint_is_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deep inside torch, whose own exception for it is no `Exception`."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter.write_data", full)
    with pytest.raises(OSError, match="step-0000002 could not be written .*No space left"):
        quietly(settings(start, tmp_path))
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("task", ["understanding", "generation", "text"])
def test_a_run_of_one_task_alone_resumes_to_the_bit(start: Path, tmp_path: Path, task: str) -> None:
    ratio = {"understanding": 0, "generation": 0, "text": 0, task: 1}
    data = {task: TINYWORLD, "ratios": [ratio], "workers": 0}
    quietly(settings(start, tmp_path / "parts", steps=2, data=data))
    quietly(settings(start, tmp_path / "parts", data=data), resume=True)
    quietly(settings(start, tmp_path / "whole", data=data))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_adapters_begin_alike_and_resume_to_the_bit(start: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "dropout": 0.3}
    quietly(settings(start, tmp_path / "parts", steps=2, lora=lora))
    quietly(settings(start, tmp_path / "parts", steps=4, lora=lora), resume=True)
    torch.rand(7)
    quietly(settings(start, tmp_path / "whole", steps=4, lora=lora))
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_a_checkpoint_of_another_run_is_refused_in_one_sentence(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path, steps=2, parts=["aligner", "generation"]))
    with pytest.raises(ValueError, match="does not fit this run"):
        quietly(settings(start, tmp_path), resume=True)


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
    with pytest.raises(RunError, match="step 5: loss nan.*the last checkpoint is intact"):
        quietly(settings(start, tmp_path))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-0000002", "step-0000004"]


def test_a_jump_of_the_loss_stops_the_run(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Data.__getitem__

    def loud(self: Data, step: int) -> Any:
        found = original(self, step)
        for sample in found.samples if step == 3 else ():
            if sample.drawn is not None:
                sample.drawn.noise.mul_(30)
        return found

    monkeypatch.setattr(Data, "__getitem__", loud)
    with pytest.raises(RunError, match="step 4: loss .* is more than 3 times its mean"):
        quietly(settings(start, tmp_path, spike=3.0))


SHARDED = """
import json, sys
import torch
torch.set_num_threads(1)
from torch.distributed.tensor import DTensor
from janusflow.training import trainer
from janusflow.training.config import read_config
original = trainer._step
def watched(run, found):
    own = [p for p in run.objective.parameters()]
    assert all(isinstance(p, DTensor) for p in own)
    assert all(isinstance(v, DTensor) for v in run.ema.values.values())
    assert sum(p.to_local().numel() for p in own) < 0.6 * sum(p.numel() for p in own)
    ids = [sample.tokens.ids for sample in found.samples]
    with open(f"{run.config.out}/seen-{run.world.rank}.jsonl", "a") as file:
        file.write(json.dumps(ids) + "\\n")
    return original(run, found)
trainer._step = watched
trainer.train(read_config(json.loads(sys.argv[1])), device="cpu", progress_bar=False, resume="resume" in sys.argv)
"""


def sharded(config: TrainConfig, tmp_path: Path, *, ranks: int = 2, resume: bool = False) -> None:
    """The run under torchrun, in processes of their own."""
    from dataclasses import asdict

    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script), json.dumps(asdict(config))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command + (["resume"] if resume else []), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def close(found: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> bool:
    return len(found) == len(expected) and all(
        a == pytest.approx(b, rel=2e-5, abs=2e-5) for a, b in zip(found, expected, strict=True)
    )


def test_two_sharded_processes_give_the_curve_of_one(start: Path, tmp_path: Path) -> None:
    alone = settings(start, tmp_path / "alone", steps=4)
    quietly(alone)
    both = settings(start, tmp_path / "both", steps=4)
    sharded(both, tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))
    for name, value in weights(tmp_path / "alone" / "export").items():
        torch.testing.assert_close(weights(tmp_path / "both" / "export")[name], value, atol=1e-5, rtol=1e-4)
    first, second = (
        [json.loads(line) for line in (tmp_path / "both" / f"seen-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    )
    for mine, other in zip(first, second, strict=True):
        assert len(mine) == len(other) == 3
        assert not any(ids in other for ids in mine)
    # Another number of processes continues the same curve.
    sharded(settings(start, tmp_path / "both", steps=6), tmp_path, ranks=2, resume=True)
    quietly(settings(start, tmp_path / "both", steps=8), resume=True)
    quietly(settings(start, tmp_path / "alone", steps=8), resume=True)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


def test_sharded_processes_with_a_frozen_llm_and_unequal_rows_do_not_wait_in_vain(start: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "parts": ["aligner", "generation"], "batch_size": 3, "pack_length": 32}
    quietly(settings(start, tmp_path / "alone", **options))
    sharded(settings(start, tmp_path / "both", **options), tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


def test_how_samples_fall_into_packs_changes_nothing(start: Path, tmp_path: Path) -> None:
    for length in (100, 2000):
        quietly(settings(start, tmp_path / str(length), steps=3, pack_length=length))
    assert close(values(tmp_path / "100"), values(tmp_path / "2000"))


def test_activation_checkpointing_and_workers_change_nothing(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path / "plain", steps=3))
    data = {
        "understanding": TINYWORLD,
        "generation": TINYWORLD,
        "text": TINYWORLD,
        "ratios": [{"understanding": 2, "generation": 3, "text": 1}],
        "workers": 1,
    }
    quietly(settings(start, tmp_path / "other", steps=3, activation_checkpointing=True, data=data))
    assert close(values(tmp_path / "other"), values(tmp_path / "plain"))


def test_sheets_of_pictures_and_answers(start: Path, tmp_path: Path) -> None:
    watch = {"every": 2, "prompts": ["a star", "two"], "questions": ["what is it?"], "num_inference_steps": 1}
    quietly(settings(start, tmp_path / "seen", steps=4, watch={**watch, "tensorboard": True}))
    names = sorted(file.name for file in (tmp_path / "seen" / "samples").iterdir())
    assert names == ["step-0000002.png", "step-0000002.txt", "step-0000004.png", "step-0000004.txt"]
    assert list((tmp_path / "seen" / "tensorboard").iterdir())
    quietly(settings(start, tmp_path / "unseen", steps=4))
    assert values(tmp_path / "seen") == values(tmp_path / "unseen")  # looking changes nothing


def test_rates() -> None:
    constant = OptimizerConfig(learning_rate=1.0, warmup=10)
    assert rate(constant, 0, 100) == pytest.approx(0.1)
    assert rate(constant, 99, 100) == 1.0
    assert rate(OptimizerConfig(learning_rate=1.0, schedule="cosine", floor=0), 50, 100) == pytest.approx(0.5)
    decay = OptimizerConfig(learning_rate=1.0, schedule="decay", floor=0)
    assert rate(decay, 75, 100) == 1.0
    assert rate(decay, 95, 100) == pytest.approx(0.2)
