"""The losses of a step: means over the samples that have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.training.losses import LossConfig
from janusflow.training.step import mean_losses
from tests.training.conftest import TINYWORLD, curve, quietly, settings


def test_a_loss_without_samples_is_not_a_loss_of_zero() -> None:
    totals = {"ar": 0.0, "text": 0.0, "flow": 3.0, "repa": -1.0}
    counts = {"ar": 0.0, "text": 0.0, "flow": 2.0, "repa": 2.0, "rows": 1.0}
    assert mean_losses(LossConfig(flow=2.0), totals, counts) == {"flow": 1.5, "repa": -0.5, "loss": 2.5}
    answers = {"ar": 4.0, "text": 0.0, "flow": 0.0, "repa": 0.0}
    counts = {"ar": 2.0, "text": 0.0, "flow": 0.0, "repa": 0.0, "rows": 1.0}
    assert mean_losses(LossConfig(), answers, counts) == {"ar": 2.0, "ar_understanding": 2.0, "loss": 2.0}


def test_a_loss_that_is_not_computed_is_not_logged(start: Path, tmp_path: Path) -> None:
    quietly(settings(start, tmp_path, steps=1, loss={"repa": 0.0}))
    assert "repa" not in curve(tmp_path)[0] and "flow" in curve(tmp_path)[0]


def test_steps_without_a_task_do_not_change_its_means_in_the_card(start: Path, tmp_path: Path) -> None:
    data = {"understanding": TINYWORLD, "generation": TINYWORLD, "workers": 0}
    data["ratios"] = [{"understanding": 1, "generation": 1, "text": 0}]
    export = quietly(settings(start, tmp_path, steps=20, batch_size=1, data=data))
    rows = curve(tmp_path)
    assert all(("flow" in row) != ("ar" in row) and ("flow" in row) == ("repa" in row) for row in rows)
    card = (export / "README.md").read_text()
    for title, name in (("L_AR", "ar"), ("L_RF", "flow"), ("L_REPA", "repa")):
        means = [[row[name] for row in part if name in row] for part in (rows[:2], rows[-2:])]
        first, last = (f"{sum(values) / len(values):.4f}" for values in means)
        assert f"| {title} | {first} | {last} |" in card
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row.get(name, 0) for name in ("ar", "flow", "repa")))
