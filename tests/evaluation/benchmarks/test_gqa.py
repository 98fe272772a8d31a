"""GQA: exact match, and a run over data in the official form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janusflow.evaluation.benchmarks.gqa import FILE, Gqa
from janusflow.evaluation.question_forms import BriefSettings
from tests.evaluation.benchmarks.questions import cut, judges_anything, run, save_picture


def gqa_folder(folder: Path) -> Path:
    """Three questions over two pictures."""
    questions = {
        "07": {"question": "What is it?", "imageId": "n1", "answer": "dog", "types": {"structural": "query"}},
        "08": {"question": "Is it red?", "imageId": "n1", "answer": "no", "types": {"structural": "verify"}},
        "09": {"question": "Who is it?", "imageId": "n2", "answer": "man", "types": {"structural": "query"}},
    }
    (folder / FILE).write_text(json.dumps(questions))
    for name in ("n1", "n2"):
        save_picture(folder / "images" / f"{name}.jpg")
    return folder


def test_from_files_to_scores(tmp_path: Path) -> None:
    says = {"What": " Dog.", "Is it": "no", "Who": "a man"}
    benchmark = Gqa(gqa_folder(tmp_path), BriefSettings())
    rows, scores, model = run(
        benchmark, lambda text: next(said for asked, said in says.items() if asked in text), tmp_path / "run"
    )
    assert [row.score for row in rows] == [1, 1, 0] and rows[0].item.group == rows[1].item.group == "n1"
    assert scores == pytest.approx({"accuracy": 200 / 3, "strict": 100 / 3, "binary": 100, "open": 50})
    assert model.talks[0][1]["content"] == (
        "<image_placeholder>\nWhat is it?\nAnswer the question using a single word or phrase."
    )
    written = json.loads((tmp_path / "run" / "official" / "testdev_balanced_predictions.json").read_text())
    assert written[0] == {"questionId": "07", "prediction": "dog"}


@pytest.mark.parametrize(
    ("answer", "score", "strict"),
    [("dog", 1, 1), ("Dog", 1, 0), ("dog.", 1, 0), ("dog\n", 1, 0), ("dogs", 0, 0), ("a dog", 0, 0), ("do.g", 0, 0)],
)
def test_exact_match(tmp_path: Path, answer: str, score: float, strict: float) -> None:
    benchmark = Gqa(gqa_folder(tmp_path), BriefSettings())
    assert benchmark.judge(benchmark.items()[0], answer) == {"score": score, "strict": strict}


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(Gqa(gqa_folder(tmp_path), BriefSettings()))


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    benchmark = Gqa(gqa_folder(tmp_path), BriefSettings())
    cut(tmp_path / "images" / "n2.jpg")
    with pytest.raises(ValueError, match="n2.jpg' is damaged or cut off.*; expected"):
        benchmark.items()
    (tmp_path / FILE).write_text('{"1": {"question": "?"}}')
    with pytest.raises(ValueError, match="question 1 lacks question, imageId and answer; expected"):
        benchmark.items()
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(ValueError, match="contains no questions by their ids"):
        benchmark.items()
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ValueError, match="is damaged.*; expected"):
        benchmark.items()
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match="is missing; expected"):
        benchmark.items()
