"""`curves.png`: what a run's log shows, and nothing that ends a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from janusflow.training.curves import _lines, draw_curves
from tests.training.conftest import quietly, settings


def test_a_run_ends_with_its_curves(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quietly(settings(start, tmp_path, steps=2, watch={"tensorboard": False}))
    assert Image.open(tmp_path / "curves.png").width > 1000
    assert f"curves: {tmp_path / 'curves.png'}" in capsys.readouterr().err


def test_without_matplotlib_a_line_says_so_and_the_run_is_whole(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = quietly(settings(start, tmp_path, steps=1, watch={"tensorboard": False}))
    assert (folder / "model.safetensors").is_file() and not (tmp_path / "curves.png").exists()
    assert 'curves.png is not drawn: pip install "janusflow[train]"' in capsys.readouterr().err


def test_long_runs_are_averaged_and_gaps_left_out() -> None:
    rows = [{"step": n, "flow": float(n), "repa": 0.0, "ar": None if n == 1 else 2.0} for n in range(1, 2501)]
    lines = _lines(rows, ("flow", "repa", "ar", "missing"))
    assert lines.keys() == {"flow", "ar"}
    steps, values = lines["flow"]
    assert len(steps) == 834 and steps[:2] == [3, 6] and values[:2] == [2.0, 5.0] and steps[-1] == 2500
    assert lines["ar"][0][0] == 4 and set(lines["ar"][1]) == {2.0}


def test_a_short_run_has_whole_steps_and_one_line_for_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}

    def savefig(figure: Figure, *args: object, **options: object) -> None:
        figure.draw_without_rendering()
        for axes in figure.axes:
            ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
            shown[axes.get_title()] = (ticks, [line.get_label() for line in axes.get_lines()])

    monkeypatch.setattr(Figure, "savefig", savefig)
    for names, wanted in (
        (("ar", "ar_understanding"), ["ar_understanding"]),
        (("ar", "ar_understanding", "ar_text"), ["ar", "ar_understanding", "ar_text"]),
    ):
        rows = [{"step": step, **dict.fromkeys(names, 1.0 / step)} for step in (1, 2, 3)]
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
        ticks, lines = shown["L_AR"]
        assert ticks == [1, 2, 3] and lines == wanted


def test_a_log_without_losses_draws_nothing(tmp_path: Path) -> None:
    assert not draw_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "broken": 1, "skipped": ["x"]}) + "\n")
    assert not draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
