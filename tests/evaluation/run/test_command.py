"""The words of `janusflow eval`, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import command as command_module
from janusflow.evaluation.run.command import eval_command as run_command
from janusflow.evaluation.run.command import read_pair, read_request, read_sweep
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.counting import Model

pytestmark = pytest.mark.usefixtures("counting")


def test_a_command_that_judged_nothing_fails(tmp_path: Path) -> None:
    evaluate(EvalRequest("counting", tmp_path, mode="generate", limit=1), model=Model())
    (tmp_path / "images" / "000.png").write_bytes(b"no picture")
    given = {"out": tmp_path, "mode": "score", "limit": 1}
    with pytest.raises(ValueError, match=r"none of 1 items could be judged: .*000\.png' is not a readable image"):
        run_command("counting", config=None, changes=given, settings=[], options=[])


def test_words_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_pair("a.b=[1, x]") == ("a.b", [1, "x"])
    assert read_sweep("guidance=1..3") == ("guidance", [1, 2, 3])
    assert read_sweep("solver=euler,heun") == ("solver", ["euler", "heun"])
    for bad in ("solver", "steps=", "steps=3..1"):
        with pytest.raises(ValueError, match="is not of the form"):
            read_sweep(bad)
    request = read_request("counting", None, {"out": tmp_path}, ["items=2"], ["steps=3"])
    assert request.settings == {"items": 2} and request.options == {"num_inference_steps": 3}
    with pytest.raises(ValueError, match="give a folder for the run"):
        read_request("counting", None, {}, [], [])
    with pytest.raises(ValueError, match="give a benchmark"):
        read_request(None, None, {}, [], [])


def test_the_terminal_shows_scores_and_the_file_what_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "evaluate", lambda request, **_: evaluate(request, model=Model()))
    text = run_command("counting", config=None, changes={"out": tmp_path}, settings=[], options=[])
    assert text.endswith(f"|\n\n{tmp_path / 'report.html'}") and "| overall | 1 |" in text
    assert "sha256" not in text and "versions" not in text
    written = (tmp_path / "report.md").read_text()
    assert written.startswith(text.removesuffix(f"\n{tmp_path / 'report.html'}")) and "weights_sha256" in written


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--steps", "--option steps=VALUE"),
        ("--guidance-scale", "--option guidance_scale=VALUE"),
        ("--cfg-scale", "--option guidance_scale=VALUE"),
        ("--solvr", "--option solver=VALUE"),
        ("--modell", "--model"),
        ("--batchsize", "--batch-size"),
    ],
)
def test_an_unknown_option_names_the_one_that_was_meant(option: str, meant: str) -> None:
    found = CliRunner().invoke(app, ["eval", "tinyworld", option, "4"], env={"COLUMNS": "200"})
    assert found.exit_code == 2 and meant in found.output, found.output


def test_the_command_that_is_stopped_ends_with_130_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model(most=5))
    done = CliRunner().invoke(app, ["eval", "counting", "--out", str(tmp_path / "run"), "--batch-size", "1"])
    assert done.exit_code == 130 and "Traceback" not in done.output
    assert "stopped: 5 of 10 items are made and 0 judged" in done.stderr and str(tmp_path / "run") in done.stderr
