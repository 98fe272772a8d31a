"""A run that is stopped or killed continues, and a folder takes one run at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.protocol import Item, Output
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.files import _host
from tests.evaluation.counting import Counting, Model

pytestmark = pytest.mark.usefixtures("counting")


def test_a_picture_that_a_kill_left_without_a_record_is_made_anew(tmp_path: Path) -> None:
    wanted, model = EvalRequest("counting", tmp_path, batch_size=1), Model()
    evaluate(wanted, model=Model())
    lines = (tmp_path / "outputs-00000.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "outputs-00000.jsonl").write_text("".join(lines[:-2]))
    assert evaluate(wanted, model=model)["score"] == 1
    assert sorted(model.made) == ["number 8", "number 9"]


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path)
    evaluate(request, model=Model())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    mine, theirs = (f".000.png.{_host()}-{process}-00000000.tmp" for process in (ended.pid, os.getppid()))
    for folder in (tmp_path, tmp_path / "images"):
        for name in (mine, theirs):
            (folder / name).write_text("half")
    evaluate(request, model=Model())
    left = {file.name for file in tmp_path.rglob("*.tmp")}
    assert left == {theirs} and len(list(tmp_path.rglob("*.tmp"))) == 2


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Second(Model):
        """Begins another run into the same folder while it is asked."""

        def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
            with pytest.raises(ValueError, match=r"another run is writing into .*run; wait for it"):
                evaluate(EvalRequest("counting", out), model=Model())
            return super().generate(prompts, **options)

    assert evaluate(EvalRequest("counting", out), model=Second())["score"] == 1
    assert evaluate(EvalRequest("counting", out), model=Model(most=0))["score"] == 1


def test_a_run_that_is_stopped_says_what_is_done_and_how_to_continue(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, batch_size=1)
    with pytest.raises(KeyboardInterrupt, match=r"stopped: 5 of 10 items are made and 0 judged; .*the same command"):
        evaluate(request, model=Model(most=5))
    evaluate(replace(request, mode="generate"), model=Model())
    original, count = Counting.judge, 0

    def stops(self: Counting, item: Item, output: Output) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return original(self, item, output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counting, "judge", stops)
        with pytest.raises(KeyboardInterrupt, match="10 of 10 items are made and [1-3] judged"):
            evaluate(request, model=Model())
    assert evaluate(request, model=Model(most=0))["judged"] == 10
