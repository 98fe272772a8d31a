"""Sweeps: a run for each value, and a figure with a panel for each number that varies."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation import command as command_module
from janusflow.evaluation import registry
from janusflow.evaluation.command import run as command
from janusflow.evaluation.sweep import curves
from tests.evaluation import test_run


def test_a_sweep_is_a_run_for_each_value_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BENCHMARKS, "counting", ("counting", "Counting"))
    monkeypatch.setitem(sys.modules, "janusflow.evaluation.counting", test_run)
    opened = []

    class Worse(test_run.Model):
        """Wrong in as many pictures and answers as it is told to guide."""

        def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
            self.wrong = range(0, 2 * options["guidance_scale"], 2)
            return super().generate(prompts, **options)

    monkeypatch.setattr(command_module, "open_model", lambda request: opened.append(request) or Worse())
    sweep = ["guidance=1..3", "solver=euler,heun"]
    changes = {"out": tmp_path}
    text = command("counting", config=None, changes=changes, settings=[], options=["steps=4"], sweep=sweep)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.9, 0.8, 0.8, 0.7, 0.7])
    assert [row["evaluations"] for row in rows] == [4, 8, 8, 16, 8, 16]
    assert (tmp_path / "sweep.svg").is_file() and text.count("\n") >= 7
    assert len(opened) == 1


def test_a_sweep_has_a_panel_for_each_number_and_a_line_for_each_name() -> None:
    keys = ["guidance_scale", "num_inference_steps", "solver"]
    scores = {(1, 5): 0.1, (1, 9): 0.4, (2, 5): 0.3, (2, 9): 0.2, (3, 5): None, (3, 9): 0.5}
    rows = [
        {**dict(zip(keys, (w, n, solver), strict=True)), "evaluations": n * w, "score": score and score + more}
        for solver, more in (("euler", 0), ("heun", 1))
        for (w, n), score in scores.items()
    ]
    found = curves(rows, keys, max)
    assert list(found) == ["guidance_scale", "num_inference_steps", "evaluations"]
    assert found["guidance_scale"] == {"euler": [(1, 0.4), (2, 0.3), (3, 0.5)], "heun": [(1, 1.4), (2, 1.3), (3, 1.5)]}
    assert found["num_inference_steps"]["euler"] == [(5, 0.3), (9, 0.5)]
    assert found["evaluations"]["euler"] == [(5, 0.1), (9, 0.4), (10, 0.4), (18, 0.4), (27, 0.5)], "of at most so many"
    single = [row for row in rows if row["num_inference_steps"] == 5]
    assert curves(single, keys, max)["evaluations"]["euler"] == [(5, 0.1), (10, 0.3)]
    assert curves(rows, keys, min)["guidance_scale"]["heun"] == [(1, 1.1), (2, 1.2), (3, 1.5)]
    assert list(curves(rows[:1], keys, max)) == ["evaluations"], "what does not vary has no panel"
