"""Sweeps: a run for each value, and a figure with a panel for each number that varies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.geneval import GenEval
from janusflow.evaluation.protocol import Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import command as command_module
from janusflow.evaluation.run import sweep as sweep_module
from janusflow.evaluation.run.command import eval_command as command
from janusflow.evaluation.run.command import read_sweep
from janusflow.evaluation.run.sweep import curves, draw_curves, network_evaluations, points
from janusflow.flow import METHODS
from tests.evaluation.benchmarks.test_geneval import geneval_folder
from tests.evaluation.benchmarks.test_qa import qa_file
from tests.evaluation.counting import Counting, Model
from tests.evaluation.reports.test_compare import Says

pytestmark = pytest.mark.usefixtures("counting")


class Worse(Model):
    """Wrong in as many pictures and answers as it is told to guide."""

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
        self.wrong = range(0, 2 * options["guidance_scale"], 2)
        return super().generate(prompts, **options)


def test_a_sweep_is_a_run_for_each_value_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    monkeypatch.setattr(command_module, "open_model", lambda request: opened.append(request) or Worse())
    sweep = ["guidance=1..3", "solver=euler,heun"]
    changes = {"out": tmp_path}
    text = command("counting", config=None, changes=changes, settings=[], options=["steps=4"], sweep=sweep)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.9, 0.8, 0.8, 0.7, 0.7])
    assert sorted(file.name for file in tmp_path.glob("guidance=1*")) == [
        "guidance=1,solver=euler",
        "guidance=1,solver=heun",
    ]
    assert text.startswith("| guidance | solver |")
    assert [row["evaluations"] for row in rows] == [4, 8, 8, 16, 8, 16]
    assert (tmp_path / "sweep.svg").is_file() and text.count("\n") >= 7
    assert len(opened) == 1
    assert text.endswith(f"{tmp_path / 'compare.html'}") and "heun" in (tmp_path / "compare.csv").read_text()


def test_a_sweep_over_models_opens_each_once_and_compares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_folder: Path
) -> None:
    opened: list[str] = []

    def open_model(request: EvalRequest) -> Model:
        opened.append(request.model)
        return Model(wrong=[2] if request.model == "tiny" else [])

    monkeypatch.setattr(command_module, "open_model", open_model)
    words = {"config": None, "changes": {"out": tmp_path}, "options": [], "settings": []}
    text = command("counting", sweep=["tolerance=0,1", f"model=tiny,{small_folder}"], **words)  # type: ignore[arg-type]
    other = f"model={str(small_folder).replace('/', '_')}"
    assert opened == ["tiny", str(small_folder)]
    names = sorted(file.name for file in tmp_path.iterdir() if file.is_dir())
    assert names == sorted(f"{model},tolerance={n}" for model in ("model=tiny", other) for n in (0, 1))
    assert json.loads((tmp_path / "model=tiny,tolerance=1" / "report.json").read_text())["settings"]["tolerance"] == 1
    assert [row["score"] for row in json.loads((tmp_path / "sweep.json").read_text())] == [0.9, 1, 1, 1]
    page = (tmp_path / "compare.html").read_text()
    assert "judged with different tolerance" in page and "<td>weights</td>" in page and "compare.html" in text


def test_a_sweep_without_numbers_has_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = qa_file(tmp_path)
    monkeypatch.setattr(command_module, "open_model", lambda request: Says("no"))
    words = {"config": None, "changes": {"out": tmp_path / "run", "data": file}, "options": [], "settings": []}
    text = command("qa", sweep=["rule=exact,contains"], **words)  # type: ignore[arg-type]
    assert text.splitlines()[0] == "| rule | overall |" and not (tmp_path / "run" / "sweep.svg").exists()
    assert (tmp_path / "run" / "compare.html").is_file() and (tmp_path / "run" / "rule=exact").is_dir()


def test_what_a_sweep_cannot_vary_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    words: Any = {"config": None, "changes": {"out": tmp_path}, "options": [], "settings": []}
    for sweep, said in (
        ("stps=1,2", "a sweep cannot vary 'stps': there is no option 'stps'; choose from .*, dtype, "),
        ("model=tiny,nowhere/at/all", "nowhere/at/all"),
        ("steps=a..b", "num_inference_steps is 'a..b'"),
        ("guidance=1..2.5", "guidance_scale is '1..2.5'"),
        ("solver=euler,euler", "two runs for the folder .*solver=euler; give each value once"),
        ("model=a/b,a_b", "two runs for the folder .*model=a_b"),
        ("model=a,,b", "is not of the form key=1,2,4"),
    ):
        with pytest.raises(ValueError, match=said):
            command("tinyworld", sweep=[sweep], **words)
    assert not list(tmp_path.iterdir())


def test_a_limit_that_leaves_out_parts_of_the_score_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GenEval, "judging_models", ())
    data = geneval_folder(tmp_path / "data")
    words: Any = {"config": None, "options": [], "settings": [], "sweep": ["guidance=1,2"]}
    with pytest.raises(ValueError, match=r"--limit 1 leaves out parts that the score 'overall' needs \(.* others\)"):
        command("geneval", changes={"out": tmp_path / "run", "data": data, "limit": 1}, **words)


def test_a_setting_may_have_the_name_of_an_option_for_answers(tmp_path: Path) -> None:
    found = points(EvalRequest("tinyworld", tmp_path), {"seed": [1, 2]})
    assert [one.settings["seed"] for _, one in found] == [1, 2] and not any(one.options for _, one in found)


def test_values_of_models_are_words_as_they_are() -> None:
    assert read_sweep("model=../a,1.30") == ("model", ["../a", "1.30"])
    request = EvalRequest("tinyworld", Path("out"))
    found = points(request, {"guidance_scale": [1, 2], "dtype": ["float32", "bfloat16"], "prompts": [3]})
    assert [point["dtype"] for point, _ in found] == ["float32", "float32", "bfloat16", "bfloat16"]
    last = found[-1][1]
    assert last.out == Path("out/dtype=bfloat16,guidance_scale=2,prompts=3") and last.dtype == "bfloat16"
    assert last.options == {"guidance_scale": 2} and last.settings == {"prompts": 3}


def test_two_dots_are_a_range_only_between_whole_numbers() -> None:
    assert read_sweep("steps=-1..2") == ("steps", [-1, 0, 1, 2])
    assert read_sweep("detector=../a,../b") == ("detector", ["../a", "../b"])
    assert read_sweep("detector=../1") == ("detector", ["../1"])
    for bad in ("steps=1..1000000", "=../a,../b"):
        with pytest.raises(ValueError, match="is not of the form"):
            read_sweep(bad)


def test_the_best_of_a_score_that_only_sweeps_show_may_be_the_lowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(self: Counting, rows: Sequence[Row]) -> dict[str, float]:
        right = sum(row.score for row in rows) / len(rows)
        return {"overall": right, "errors": 1 - right}

    drawn = []
    monkeypatch.setattr(Counting, "scores", scores)
    monkeypatch.setattr(Counting, "swept", "errors")
    monkeypatch.setattr(Counting, "swept_lower_is_better", True, raising=False)
    monkeypatch.setattr(command_module, "open_model", lambda request: Worse())
    monkeypatch.setattr(sweep_module, "_draw", lambda file, panels, *_, **__: drawn.append(panels))
    words: Any = {"config": None, "changes": {"out": tmp_path}, "options": [], "settings": ["items=4"]}
    command("counting", sweep=["guidance=1,2", "steps=4,8"], **words)
    assert drawn[0]["steps"][""] == [(4, 0.25), (8, 0.25)]
    command("counting", sweep=["tolerance=0,1", "guidance=1,2"], **words)
    assert drawn[1]["tolerance"][""] == [(0, 0.75), (1, 1)], "the main score, for which more is better"


def test_evaluations_are_the_solvers_own_where_guidance_acts() -> None:
    made: dict[str, Any] = {"num_inference_steps": 10, "guidance_scale": 2.0}
    for solver in METHODS:
        each = network_evaluations({**made, "solver": solver, "num_inference_steps": 1, "guidance_scale": 1.0})
        assert each == (2 if solver in ("heun", "midpoint") else 1)
        assert network_evaluations({**made, "solver": solver}) == 20 * each
    assert network_evaluations({**made, "solver": "euler", "guidance_interval": [0.0, 0.45]}) == 15
    assert network_evaluations(made) is None, "a model without a solver"


def test_a_sweep_over_models_shows_all_scores_of_the_tiny_world() -> None:
    request = EvalRequest("tinyworld", Path("out"))
    assert command_module._for_sweep(request, ["model", "solver"]) == (request, "overall")


def test_a_key_that_is_swept_twice_is_refused(tmp_path: Path) -> None:
    words: Any = {"config": None, "changes": {"out": tmp_path}, "options": [], "settings": []}
    for sweep in (["steps=1", "steps=2"], ["steps=1", "num_inference_steps=2"]):
        with pytest.raises(ValueError, match="the sweep has one key twice"):
            command("tinyworld", sweep=sweep, **words)


def test_a_sweep_without_its_score_has_no_empty_column(tmp_path: Path) -> None:
    report = {"benchmark": "qa", "scores": {}, "intervals_95": {}, "options": {}}
    with pytest.warns(UserWarning, match="no run has the score 'overall', so the sweep has no curve"):
        text = draw_curves(tmp_path, [({"temperature": 1}, report), ({"temperature": 2}, report)], shown="overall")
    assert text.splitlines()[0] == "| temperature |" and not (tmp_path / "sweep.svg").exists()


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
    assert found["evaluations"]["euler"] == [(5, 0.1), (9, 0.4), (10, 0.4), (18, 0.4), (27, 0.5)], (
        "with that number or fewer"
    )
    single = [row for row in rows if row["num_inference_steps"] == 5]
    assert curves(single, keys, max)["evaluations"]["euler"] == [(5, 0.1), (10, 0.3)]
    assert curves(rows, keys, min)["guidance_scale"]["heun"] == [(1, 1.1), (2, 1.2), (3, 1.5)]
    assert list(curves(rows[:1], keys, max)) == ["evaluations"], "what does not vary has no panel"
