"""The dry run's time on this machine: of real steps, without a trace; or why there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.device import free_memory
from janusflow.training import measure
from janusflow.training.config import load_config
from janusflow.training.measure import _time_steps, measured
from janusflow.training.step import take_step
from tests.training.conftest import ALONE, TINYWORLD, settings

RECIPES = Path(__file__).parents[2] / "recipes"
SAID = r"on this machine \(cpu, float32\): \S+ s a step, measured; .*\d:\d\d:\d\d for 6 steps"


def test_steps_are_measured_and_nothing_is_written(start: Path, tmp_path: Path) -> None:
    data = {"generation": [{"kind": "replay", "path": "tinyworld", "images": 2}], "workers": 0}
    data |= {"ratios": [{"understanding": 0, "generation": 1, "text": 0}], "cache": str(tmp_path / "cache")}
    config = settings(start, tmp_path / "run", data=data, samples={"crop": "center"}, compile=True)
    said = measured(config, device="cpu")
    assert re.match(SAID, said), said
    assert said.endswith("without checkpoints and the export, generating the replay, compiling")
    assert not list(tmp_path.iterdir())


def test_the_command_measures_unless_it_is_asked_not_to(start: Path, tmp_path: Path) -> None:
    words = ["train", str(RECIPES / "tiny" / "stage2.yaml"), f"model={start}", "loss.repa_block=2", "batch_size=4"]
    words += [f"out={tmp_path / 'run'}", "steps=6", "precision=float32", "ema=0.99", "--dry-run", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and re.search(SAID, done.stdout), done.output
    assert "exported weights: 94.1 % of them will still be the starting weights" in done.stdout
    assert re.search(r"in all [1-9]\S* GPU-seconds of H100 at 40% MFU \(from the FLOPs, not measured\)", done.stdout)
    assert "on 64 GPUs" not in done.stdout and "0.0 GB" not in done.stdout
    quick = CliRunner().invoke(app, [*words, "--no-measure"])
    assert quick.exit_code == 0 and "on this machine" not in quick.stdout and "FLOPs per step" in quick.stdout
    assert not (tmp_path / "run").exists()


def test_a_step_that_would_take_too_long_is_estimated_from_small_ones(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock by which a step takes 3 seconds and 2 for each sample, and reading them takes 7."""
    now, taken = [0.0], []

    def slow(run: Any, found: Any) -> dict[str, float]:
        taken.append(len(found.samples))
        now[0] += 3.0 + 2.0 * len(found.samples)
        return take_step(run, found)

    def slow_data(*args: Any) -> Any:
        data = open_data(*args)

        def read(step: int) -> Any:
            now[0] += 7.0
            return data[step]

        return _Reading(read)

    open_data = measure.open_data
    monkeypatch.setattr(measure, "take_step", slow)
    monkeypatch.setattr(measure, "open_data", slow_data)
    config = settings(start, tmp_path, batch_size=20)
    found = _time_steps(config, ALONE, clock=lambda: now[0])
    assert found == (43.0 + 7.0, 8) and taken == [4, 4, 8]
    taken.clear()
    monkeypatch.setattr(measure, "BUDGET", 90.0)
    behind = replace(config, data=replace(config.data, workers=2))
    found = _time_steps(behind, ALONE, clock=lambda: now[0])
    assert found == (43.0, 20) and taken == [4, 4, 8, 20, 20]


class _Reading:
    """Data that is read by a function."""

    def __init__(self, read: Any) -> None:
        self.read = read

    def __getitem__(self, step: int) -> Any:
        return self.read(step)


def test_what_cannot_be_measured_says_why(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**changes: Any) -> str:
        return measured(settings(start, tmp_path / "run", **changes), device="cpu")

    one = {"ratios": [{"understanding": 0, "generation": 1, "text": 0}], "workers": 0}
    missing = {**one, "generation": [{"kind": "jsonl", "path": str(tmp_path / "none.jsonl")}]}
    assert said(data=missing).startswith("not measured on this machine: ") and "none.jsonl" in said(data=missing)
    hub = {**one, "generation": [{"kind": "hub", "path": "someone/pictures"}]}
    assert "the data set someone/pictures is read from the hub" in said(data=hub)
    assert "no/such is not on this machine; the run fetches it first" in said(
        data={**one, "generation": TINYWORLD}, model={"checkpoint": str(start), "vae": "no/such"}
    )
    with monkeypatch.context() as patched:
        patched.setattr(measure, "free_memory", lambda device: 1_000)
        assert re.search(r"one process needs about \S+ GB, and 0.0 GB are free", said())
        paper = measured(load_config(RECIPES / "paper" / "stage1.yaml"), device="cpu")
        assert re.search(r"not measured on this machine: one process needs about \d\d\.\d GB", paper)
    with monkeypatch.context() as patched:
        patched.setattr(measure, "take_step", lambda run, found: (_ for _ in ()).throw(RuntimeError("out of memory")))
        assert said() == "not measured on this machine: out of memory"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes share the work" in said()
    assert not (tmp_path / "run").exists()


def test_data_that_ends_the_run_fails_the_dry_run_too(start: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "missing.png", "text": "a star"}\n')
    words = ["train", str(RECIPES / "finetune" / "generation.yaml"), f"model={start}", "loss.repa_block=2", "--dry-run"]
    words += ["data.own_share=1", f"data={tmp_path / 'rows.jsonl'}", f"out={tmp_path / 'run'}", "batch_size=4"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 2, done.output
    assert "the only record of a source is broken" in " ".join(done.output.split())


def test_weights_that_the_hubs_cache_lacks_are_not_fetched(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run itself leaves a hub id's small files in the cache."""
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(measure, "try_to_load_from_cache", lambda name, file: str(tmp_path / file))
    assert not measure._is_here("some/model")
    (tmp_path / "model.safetensors").touch()
    assert measure._is_here("some/model") and measure._is_here(str(start)) and not measure._is_here("nowhere")


def test_free_memory_of_a_cpu_is_known() -> None:
    assert (free_memory(torch.device("cpu")) or 0) > 1e6
