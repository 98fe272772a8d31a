"""The dry run counts what is left, and the power estimate comes from finished runs or given deviations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janusflow.ablation.execution import run_all
from janusflow.ablation.plan import dry_run, power
from janusflow.ablation.runs import RESULTS
from janusflow.ablation.statistics import smallest_effect
from tests.ablation.conftest import Journal, opened, write


def test_a_dry_run_says_steps_time_and_gpu_days_and_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, samples_per_second=10)
    text = dry_run(opened(tmp_path, seeds=1))
    assert "F/seed-0: first 2 steps of 4; second 8 steps of 4, 0.1 min" in text
    assert "D/seed-0: second 2 steps of 4, 0.0 min" in text
    assert "3 runs, 3 of them not finished" in text and "hours at 10 samples a second" in text
    assert "GPU days of H100 at 40 % MFU" in text
    assert not (tmp_path / "out").exists()


def test_runs_whose_model_is_missing_are_not_counted_as_free(tmp_path: Path) -> None:
    variants = {"F": {"about": ""}, "A": {"about": "", "stages": {"first": ["model=runs/of/nothing"]}}}
    write(tmp_path, variants=variants, samples_per_second=10)
    text = dry_run(opened(tmp_path, seeds=1))
    assert "GPU days of H100" in text and "GPU days of 1 runs: unknown before the model" in text


def test_finished_runs_give_the_speed_and_are_not_counted(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    run_all(opened(tmp_path, seeds=1, only=["F"]), say=lambda text: None)
    file = tmp_path / "out" / "runs" / "F" / "seed-0" / RESULTS
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 20.0}))  # of 40 samples
    text = dry_run(opened(tmp_path, seeds=1))
    assert "F/seed-0: first 2 steps of 4; second 8 steps of 4, finished" in text
    assert "3 runs, 2 of them not finished" in text and "at 2 samples a second" in text


def test_finished_runs_without_training_are_counted_as_finished(tmp_path: Path, journal: Journal) -> None:
    metrics = {"drawing": {"evaluation": "world", "score": "drawing"}}
    write(tmp_path, stages=[], variants={"F": {"about": ""}}, metrics=metrics)
    run_all(opened(tmp_path), say=lambda text: None)
    assert dry_run(opened(tmp_path)).endswith("2 runs, 0 of them not finished")


def test_power_comes_from_the_deviations_of_finished_runs(tmp_path: Path, journal: Journal) -> None:
    """Differences of A to F are -10, -9, -8 (see the report's test), a deviation of 1; those of D are equal."""
    write(tmp_path, seeds=3)
    runs = opened(tmp_path)
    with pytest.raises(ValueError, match="no variant has two finished runs .* give --sd METRIC=DEVIATION"):
        power(runs)
    run_all(runs, say=lambda text: None)
    lines = power(runs).splitlines()
    assert lines[-1].endswith("drawing 1")
    assert float(lines[2].split()[1]) == pytest.approx(smallest_effect(1.0, 3), rel=1e-3)
    assert power(runs, {"drawing": 0.5}).splitlines()[-1].endswith("drawing 0.5")
    with pytest.raises(ValueError, match="--sd has 'x'; expected one of drawing"):
        power(runs, {"x": 1.0})
