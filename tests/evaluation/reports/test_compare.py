"""Comparisons of runs: what is refused and flagged, paired differences, changed items, and the files written."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation import registry
from janusflow.evaluation.protocol import Item
from janusflow.evaluation.reports.compare import Comparison, compare_runs
from janusflow.evaluation.reports.comparison_page import difference_cell, is_clear, latex, page, write_comparison
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.evaluation.run.limit import limited
from tests.evaluation.benchmarks.questions import Answering
from tests.evaluation.benchmarks.test_qa import qa_file
from tests.evaluation.counting import Counting, Model

pytestmark = pytest.mark.usefixtures("counting")


def counted(out: Path, *wrong: int, **changes: Any) -> Path:
    evaluate(replace(EvalRequest("counting", out), **changes), model=Model(wrong=wrong))
    return out


class Says(Answering):
    """Answers the same to every question."""

    def __init__(self, said: str) -> None:
        super().__init__(lambda text: said)

    def chat_batch(self, talks: Any, **options: Any) -> list[str]:
        return super().chat_batch(talks)


def answered(out: Path, data: Path, said: str, **changes: Any) -> Path:
    evaluate(replace(EvalRequest("qa", out, data=data), **changes), model=Says(said))
    return out


def test_differences_are_paired_over_the_items_of_both_runs(tmp_path: Path) -> None:
    benchmark = EvalRequest("counting", tmp_path / "none", settings={"items": 40}).open()
    one, two, three = sorted(int(item.key) for item in limited(benchmark, benchmark.items(), 20))[:3]
    first = counted(tmp_path / "first", one, two, settings={"items": 40})
    better = counted(tmp_path / "better", settings={"items": 40})
    shorter = counted(tmp_path / "shorter", one, two, three, settings={"items": 40}, limit=20)
    found = compare_runs([first, better, shorter])
    assert found.scores == ["overall"] and [run.name for run in found.runs] == ["first", "better", "shorter"]
    gain, loss = found.differences
    assert gain.values["overall"] == pytest.approx(2 / 40) and gain.items == 40
    low, high = gain.intervals_95["overall"]
    assert 0 <= low < 0.05 < high
    assert loss.values["overall"] == pytest.approx(-1 / 20) and loss.items == 20
    assert "20 of 40 items of first have no verdict in shorter." in found.notes
    assert [change.item.key for change in found.changes] == [f"{number:03}" for number in (one, two, three)]
    assert [row and row.score for row in found.changes[0].rows] == [0, 1, 0]
    assert found.differing == {"limit": ("-", "-", "20")}


def test_items_of_one_group_are_resampled_together(tmp_path: Path) -> None:
    settings = {"items": 40}
    runs = [counted(tmp_path / "a", 0, 1, 2, 3, settings=settings), counted(tmp_path / "b", settings=settings)]
    low, high = compare_runs(runs).differences[0].intervals_95["overall"]
    assert low == 0 and high >= 0.25, "one of ten groups changed; forty single items would end near 0.2"


def test_runs_of_equal_outputs_have_no_interval_and_no_change(tmp_path: Path) -> None:
    found = compare_runs([counted(tmp_path / name, 1) for name in ("a", "b")])
    assert found.differences[0].values == {"overall": 0} and not found.differences[0].intervals_95
    assert not found.changes and not found.differing
    assert found.notes == ("Only 10 items are in both a and b: too few for a conclusion.",)


def test_what_runs_were_made_with_is_shown_where_it_differs(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    (weights / "vae").mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"one")
    first = counted(tmp_path / "a", options={"num_inference_steps": 4, "guidance_scale": 2.0}, dtype="float32")
    other = counted(tmp_path / "b", model=str(weights), settings={"tolerance": 1}, options={"guidance_scale": 3.0})
    found = compare_runs([first, other])
    assert found.differing["model"] == ("tiny", str(weights)) and found.differing["guidance_scale"] == ("2.0", "3.0")
    assert found.differing["num_inference_steps"][0] == "4" and found.differing["dtype"][0] == "float32"
    one, two = found.differing["weights"]
    assert len(one) == len(two) == 12 and one != two
    assert any("judged with different tolerance" in note for note in found.notes)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = counted(tmp_path / "a")
    other = answered(tmp_path / "b", qa_file(tmp_path), "cat")
    for folders, said in (
        ([first], "1 run was given; give two or more folders"),
        ([first, tmp_path / "b" / ".." / "a"], "was given twice"),
        ([first, tmp_path / "nowhere"], "nowhere has no report.json; give the folder of a finished run"),
        ([first, other], "a is a run of counting and .*b of qa; compare runs of one benchmark"),
    ):
        with pytest.raises(ValueError, match=said):
            compare_runs(folders)
    monkeypatch.setattr(Counting, "items", lambda self: [Item("z", "number 1", data={"n": 1})])
    elsewhere = counted(tmp_path / "z")
    with pytest.raises(ValueError, match="a and .*z have no judged item in common"):
        compare_runs([first, elsewhere])
    (elsewhere / "results.jsonl").write_text("")
    with pytest.raises(
        ValueError, match=r"results.jsonl has 0 items and report.json 1; run it again with --mode score"
    ):
        compare_runs([first, elsewhere])
    (elsewhere / "report.json").write_text("{}")
    with pytest.raises(ValueError, match=r"report\.json is damaged"):
        compare_runs([first, elsewhere])


def test_other_data_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    good = [{"id": str(n), "question": f"{n}?", "answer": "cat", "image": "b.png"} for n in range(4)]
    first = answered(tmp_path / "first", qa_file(tmp_path, good), "dog")
    second = answered(tmp_path / "second", qa_file(tmp_path, [*good[:3], {**good[3], "answer": "dog"}]), "cat")
    with pytest.raises(ValueError, match=r"scored on different data: questions\.jsonl; .* with --any-data"):
        compare_runs([first, second])
    found = compare_runs([first, second], any_data=True)
    assert found.differences[0].items == 3 and found.differences[0].values == {"overall": 100}
    assert any("1 items have the same key but other content" in note for note in found.notes)
    assert "data: questions.jsonl" in found.differing


def test_the_page_shows_pictures_and_answers_and_escapes_them(tmp_path: Path) -> None:
    records = [{"question": "<b>What?</b>", "answer": "cat", "image": "b.png"}, {"question": "Who?", "answer": "cat"}]
    data = qa_file(tmp_path, records)
    found = compare_runs(
        [answered(tmp_path / "a", data, "cat"), answered(tmp_path / "<i>", data, "<script>x</script>")]
    )
    html = page(found, changes=30)
    assert html.count("data:image/png") == 1 and "&lt;script&gt;x&lt;/script&gt;" in html
    assert "<script" not in html and "<b>What" not in html and "<i>" not in html and str(tmp_path) not in html
    assert "2 items are scored differently." in " ".join(html.split())
    few = " ".join(page(found, changes=1).split())
    assert "the 1 that changed most are shown, all are in changed.csv" in few and "Who?" not in few


def test_generated_pictures_stand_side_by_side(tmp_path: Path) -> None:
    found = compare_runs([counted(tmp_path / "a", 2, 3), counted(tmp_path / "b")])
    assert page(found, changes=30).count("data:image/png") == 2, "one picture of each run, and two answers"
    shutil.rmtree(tmp_path / "b" / "images")
    assert page(found, changes=30).count("data:image/png") == 1


def test_data_that_is_gone_costs_the_pictures_of_questions_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data = qa_file(folder)
    runs = [answered(tmp_path / name, data, name) for name in ("cat", "dog")]
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    found = compare_runs(runs)
    assert any("Pictures of questions are not shown: " in note for note in found.notes)
    assert page(found, changes=9).count("data:image/png") == 0 and found.differences[0].values["overall"] == -25
    found = compare_runs(runs, data=moved / "questions.jsonl")
    assert page(found, changes=9).count("data:image/png") == 1


def test_csv_and_latex_hold_the_same_table(tmp_path: Path) -> None:
    settings = {"items": 40}
    runs = [
        counted(tmp_path / name, *wrong, settings=settings) for name, wrong in (("a_1", range(0, 40, 3)), ("b&c", ()))
    ]
    found = compare_runs(runs)
    write_comparison(found, tmp_path / "out")
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["a_1", "b&c"] and rows[0]["difference"] == ""
    assert float(rows[1]["difference"]) == pytest.approx(14 / 40) and rows[1]["n_common"] == "40"
    assert 0 < float(rows[1]["difference_low"]) < 14 / 40 < float(rows[1]["difference_high"])
    with (tmp_path / "out" / "changed.csv").open() as file:
        changed = list(csv.reader(file))
    assert changed[0] == ["key", "prompt", "score: a_1", "score: b&c", "output: a_1", "output: b&c"]
    assert len(changed) == 15 and changed[1][2:4] == ["0.0", "1.0"]
    text = latex(found)
    assert r" & a\_1 & b\&c & difference \\" in text and r"\textbf{+0.35" in text and text.count(r"\\") == 3
    assert is_clear(found.differences[0], "overall") and difference_cell(found.differences[0], "other") == ""


def test_names_come_from_where_the_paths_part(tmp_path: Path) -> None:
    runs = [counted(tmp_path / name / "run") for name in ("a", "b")]
    assert [run.name for run in compare_runs(runs).runs] == ["a/run", "b/run"]


def test_a_distance_between_whole_sets_has_a_difference_without_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "scores_of_all", lambda self, rows: {"distance": sum(row.score for row in rows)})
    runs = [counted(tmp_path / "a", 1), counted(tmp_path / "b"), counted(tmp_path / "c", limit=5)]
    whole, part = compare_runs(runs).differences
    assert whole.values["distance"] == 1 and "distance" not in whole.intervals_95 and "distance" not in part.values


def test_scores_from_files_in_the_runs_folders_are_each_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "scores", lambda self, rows: {"overall": float((self.out / "kept").read_text())})
    for name, kept in (("a", "1"), ("b", "3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_text(kept)
    found = compare_runs([counted(tmp_path / name) for name in ("a", "b")])
    assert found.differences[0].values == {"overall": 2}
    assert [run.benchmark.out for run in found.runs] == [tmp_path / "a", tmp_path / "b"]


def test_the_command_prints_a_table_and_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(counted(tmp_path / name, *wrong)) for name, wrong in (("before", [1]), ("after", []))]
    done = CliRunner().invoke(app, ["eval", "compare", *runs])
    assert done.exit_code == 0, done.output
    assert (
        "Differences are to before" in done.stdout
        and "+0.1" in done.stdout
        and done.stdout.endswith("comparison/compare.html\n")
    )
    names = ["changed.csv", "compare.csv", "compare.html", "compare.tex"]
    assert sorted(file.name for file in (tmp_path / "comparison").iterdir()) == names
    refused = CliRunner().invoke(app, ["eval", "compare", runs[0]])
    assert refused.exit_code == 2 and "error: 1 run was given" in refused.stderr


def test_help_names_every_benchmark() -> None:
    done = CliRunner().invoke(app, ["eval", "--help"])
    assert done.exit_code == 0
    assert all(name in done.stdout for name in registry.BENCHMARKS) and "eval compare" in done.stdout
    assert "Usage: janusflow eval [OPTIONS]" in done.stdout or "eval [OPTIONS]" in done.stdout
    assert "--any-data" in CliRunner().invoke(app, ["eval", "compare", "--help"]).stdout


def test_old_runs_without_a_data_path_are_compared(tmp_path: Path) -> None:
    data = qa_file(tmp_path)
    runs = [answered(tmp_path / name, data, name) for name in ("cat", "dog")]
    for run in runs:
        report = json.loads((run / "report.json").read_text())
        del report["data"]
        (run / "report.json").write_text(json.dumps(report))
    found: Comparison = compare_runs(runs)
    assert any("no questions were given" in note for note in found.notes) and len(found.changes) == 1


def test_each_score_has_the_number_of_items_that_it_is_over(tmp_path: Path) -> None:
    questions = [{"id": str(i), "question": f"{i}?", "answer": "yes", "category": "rare"} for i in range(2)]
    questions += [{"id": str(i), "question": f"{i}?", "answer": "no", "category": "often"} for i in range(2, 6)]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions))
    found = compare_runs([answered(tmp_path / said, data, said) for said in ("no", "yes")])
    write_comparison(found, tmp_path / "page")
    with (tmp_path / "page" / "compare.csv").open() as opened:
        rows = {(row["score"], row["run"]): row for row in csv.DictReader(opened)}
    assert [rows[name, "yes"]["n"] for name in ("overall", "category/rare", "category/often")] == ["6", "2", "4"]
    assert rows["category/rare", "yes"]["n_common"] == "2"
    assert "(n = 2, few)" in difference_cell(found.differences[0], "category/rare")
    assert "(few)" in difference_cell(found.differences[0], "overall")
    assert "(n = 2, few)" in (tmp_path / "page" / "compare.html").read_text()
