"""MMBench: options read by rule and by a judge, rotations, and a run over a TSV file in the official form."""

from __future__ import annotations

import base64
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.benchmarks.mmbench import FILES, TURN, MmBench, MmBenchSettings, read_option
from janusflow.evaluation.judges import open_judge as judges
from janusflow.evaluation.protocol import NotJudgedError
from janusflow.evaluation.question_forms import choice_question
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.questions import Answering, judges_anything, run, save_picture
from tests.evaluation.benchmarks.test_mmvet import Replying

OPTIONS = {"A": "a red apple", "B": "two pears", "C": "nothing at all"}
COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "image", "split"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. two pears", "B"),
        ("**C**", "C"),
        ("The answer is B", "B"),
        ("A or B", None),  # two letters, and no text
        ("b", None),
        ("B is what I see in it", None),  # not among the last four words
        ("I see in it B and more", "B"),
        ("two PEARS!", "B"),
        ("two pears, nothing at all", None),  # two texts
        ("two pears" + "." * 100, None),  # longer than twice the options
        ("D", None),  # no such option here
        ("Cannot determine the answer: B", None),
        ("", None),
        ("梨 B", "B"),
    ],
)
def test_how_options_are_read(answer: str, letter: str | None) -> None:
    assert read_option(answer, OPTIONS) == letter


def test_how_questions_are_asked() -> None:
    letter = "Answer with the option's letter from the given choices directly."
    listed = "A. a red apple\nB. two pears\nC. nothing at all"
    assert choice_question("What?", OPTIONS, "wrapper") == (f"What?\n{listed}\n\n{letter}", "")
    assert choice_question("What?", OPTIONS, "wrapper", hint="fruit")[0].startswith("Hint: fruit\nWhat?\nA. ")
    assert choice_question("What?", OPTIONS, "plain") == (f"What?\n{listed}", None)
    assert choice_question("What?", {}, "wrapper")[0] == "What?\nAnswer the question directly."


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Three questions, two of them with a rotation; the third has the first one's picture."""
    picture = base64.b64encode(save_picture(folder / "made.jpg")).decode()
    base = {"question": 'Which "one"?', "hint": "", "D": "", "split": "dev", "image": picture}
    first = {"index": "1", "A": "cat", "B": "dog", "C": "", "answer": "A", "category": "ocr", "l2-category": "fine"}
    second = {"index": "2", "A": "x", "B": "y", "C": "z", "answer": "B", "category": "maths", "l2-category": "logic"}
    third = {**second, "index": "3", "hint": "a\thint", "category": "ocr", "l2-category": "fine", "image": "1"}
    return [
        base | first,
        base | second,
        base | third,
        base | first | {"index": str(TURN + 1), "A": "dog", "B": "cat", "answer": "B", "image": "1"},
        base | second | {"index": str(TURN + 2), "A": "z", "B": "x", "C": "y", "answer": "C", "image": "2"},
    ]


def mmbench_folder(folder: Path, rows: list[dict[str, str]] | None = None) -> Path:
    rows = rows_of(folder) if rows is None else rows
    with (folder / FILES[0]).open("w", newline="") as file:
        table = csv.DictWriter(file, [name for name in COLUMNS if name in rows[0]], delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return folder


def test_from_files_to_scores(tmp_path: Path) -> None:
    benchmark = MmBench(mmbench_folder(tmp_path), MmBenchSettings())
    said = iter(["A", "B", "y", "A", "C"])  # the first question's rotation is wrong
    rows, scores, model = run(benchmark, lambda text: next(said), tmp_path / "run")
    assert [row.score for row in rows] == [1, 1, 1, 0, 1]
    assert [row.item.group for row in rows] == ["1", "2", "3", "1", "2"]
    assert scores == pytest.approx(
        {
            "circular": 200 / 3,
            "vanilla": 100,
            "category/maths": 100,
            "category/ocr": 50,
            "l2-category/fine": 50,
            "l2-category/logic": 100,
        }
    )
    assert model.talks[0][-1]["content"].startswith('<image_placeholder>\nWhich "one"?\nA. cat\nB. dog\n\nAnswer with')
    assert "Hint: a\thint\n" in model.talks[2][-1]["content"]
    assert {talk[-1]["images"][0] for talk in model.talks} == {(tmp_path / "made.jpg").read_bytes()}
    with (tmp_path / "run" / "official" / FILES[0]).open(newline="") as file:
        written = list(csv.DictReader(file, delimiter="\t"))
    assert [row["prediction"] for row in written] == ["A", "B", "y", "A", "C"]
    assert written[3]["index"] == str(TURN + 1) and written[3]["B"] == "cat" and "image" not in written[3]


def test_a_question_counts_once_all_its_rotations_are_asked(tmp_path: Path) -> None:
    benchmark = MmBench(mmbench_folder(tmp_path), MmBenchSettings())
    rows, _, _ = run(benchmark, lambda text: "A", tmp_path / "run")
    assert benchmark.scores(rows[:2]) == {"vanilla": 50}
    assert benchmark.scores([rows[0], rows[3]])["circular"] == 0
    assert "circular" not in benchmark.scores(rows[3:])


def test_a_file_without_rotations_has_no_circular_score(tmp_path: Path) -> None:
    benchmark = MmBench(mmbench_folder(tmp_path, rows_of(tmp_path)[:3]), MmBenchSettings())
    _, scores, _ = run(benchmark, lambda text: "A", tmp_path / "run", whole=False)
    assert scores["vanilla"] == pytest.approx(100 / 3) and set(scores) == {"vanilla"}


def test_a_judge_reads_what_the_rules_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Replying("I think", "A.", "Z")
    monkeypatch.setattr(judges, "open_judge", lambda spec, **options: judge)
    benchmark = MmBench(mmbench_folder(tmp_path), MmBenchSettings(judge="fake"))
    benchmark.out = tmp_path / "run"
    item = benchmark.items()[0]
    assert benchmark.judge(item, "B")["said"] == "B" and not judge.asked
    assert benchmark.judge(item, "It purrs.") == {"score": 1, "said": "A", "read by": "judge"}
    assert [asked[1:] for asked in judge.asked] == [(0, 0), (0.5, 1)]
    assert "A. cat\nB. dog\nReply: It purrs.\n" in judge.asked[0][0]
    assert benchmark.judge(item, "It swims.")["said"] == "Z"
    judge.replies = ["?"]
    assert benchmark.judge(item, "It flies.")["score"] == 0


def test_a_set_without_answers_is_answered_and_says_so(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in rows_of(tmp_path)]
    request = EvalRequest("mmbench", tmp_path / "run", data=mmbench_folder(tmp_path, rows), mode="generate")
    assert evaluate(request, model=Answering(lambda text: "B"))["done"] == 5
    report = evaluate(replace(request, mode="score"))
    assert report["judged"] == 0 and report["score"] is None
    assert report["not_judged"]["1"].startswith(f"{FILES[0]} has no answers, as MMBench's test set: what is scored")
    assert f"{FILES[0]} has no answers" in (tmp_path / "run" / "report.html").read_text()
    assert "Without a verdict: 5, for example: " in (tmp_path / "run" / "report.md").read_text()
    with (tmp_path / "run" / "official" / FILES[0]).open(newline="") as file:
        written = list(csv.DictReader(file, delimiter="\t"))
    assert [row["prediction"] for row in written] == ["B"] * 5 and "answer" not in written[0]


def test_nobody_says_which_scheme_published_figures_follow() -> None:
    assert {name for row in MmBench.published.values() for name in row} == {"scheme not stated"}


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(MmBench(mmbench_folder(tmp_path), MmBenchSettings()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "9"}, "should be that of index 9, which is missing"),
        ({"image": "!" * 80}, "the picture of index 1 in .* is not base64"),
        ({"image": base64.b64encode(b"\xff\xd8" + b"0" * 80).decode()}, "the picture of index 1 in .*: the picture is"),
        ({"answer": "D"}, "row 1 has no index, or no option 'D'"),
        ({"answer": ""}, "row 1 has no index, or no option ''"),
        ({"index": "one"}, "row 1 has no index"),
        ({"index": "2"}, "is damaged: index 2 occurs twice, again in row 2"),
    ],
)
def test_it_names_damaged_rows(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = rows_of(tmp_path)
    rows[0] |= change
    with pytest.raises(ValueError, match=f"{said}.*; expected"):
        MmBench(mmbench_folder(tmp_path, rows), MmBenchSettings()).items()


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MMBench_DEV_EN.tsv is missing; expected"):
        MmBench(tmp_path, MmBenchSettings()).items()
    with pytest.raises(ValueError, match="other.tsv is missing; expected"):
        MmBench(tmp_path, MmBenchSettings(file="other.tsv")).items()
    rows = [{k: v for k, v in row.items() if k != "question"} for row in rows_of(tmp_path)]
    with pytest.raises(ValueError, match="is another version: it has no column question; expected"):
        MmBench(mmbench_folder(tmp_path, rows), MmBenchSettings()).items()
    file = mmbench_folder(tmp_path) / FILES[0]
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match="is damaged: row 5 does not have 12 columns; expected"):
        MmBench(tmp_path, MmBenchSettings()).items()


def test_a_judge_that_reasons_is_read_without_its_thoughts(tmp_path: Path) -> None:
    benchmark = MmBench(mmbench_folder(tmp_path), MmBenchSettings(judge="fake"))
    benchmark.judge_model = Replying("<think>Z or B?</think>A")
    item = benchmark.items()[0]
    assert benchmark.judge(item, "It purrs.")["said"] == "A"
    benchmark.judge_model = Replying("<think>Z or B?")
    with pytest.raises(NotJudgedError, match="said nothing in 3 tries"):
        benchmark.judge(item, "It purrs.")
