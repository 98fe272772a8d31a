"""MM-Vet: grades read from replies, tries with rising temperature, capabilities, and a run with a stand-in judge."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.mmvet import TRIES, MmVet, MmVetSettings, read_grade
from janusflow.evaluation.judges import open_judge as judges
from janusflow.evaluation.protocol import NotJudgedError
from tests.evaluation.benchmarks.questions import cut, judges_anything, run, save_picture

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))


class Replying:
    """A judge that replies what it is told to, in turn, and keeps what it was asked."""

    name = "replying"

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), list[tuple[str, float, int]]()

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        self.asked.append((prompt, temperature, attempt))
        return self.replies[(len(self.asked) - 1) % len(self.replies)]


def mmvet_folder(folder: Path) -> Path:
    """Two questions in the official form."""
    questions = {
        "v1_0": {"imagename": "a.jpg", "question": "What is x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]},
        "v1_1": {"imagename": "b.jpg", "question": "Who?", "answer": "Ada<OR>she", "capability": ["rec", "ocr"]},
    }
    (folder / "mm-vet.json").write_text(json.dumps(questions))
    for name in "ab":
        save_picture(folder / "images" / f"{name}.jpg")
    return folder


def graded(folder: Path, monkeypatch: pytest.MonkeyPatch, *replies: str) -> tuple[MmVet, Replying]:
    """The benchmark with a judge that replies so."""
    judge = Replying(*replies)
    opened: list[str] = []

    def open_judge(spec: str, **options: Any) -> Replying:
        opened.append(spec)
        assert opened == ["fake"] and options == {"cache": folder / "run" / "replies"}  # once
        return judge

    monkeypatch.setattr(judges, "open_judge", open_judge)
    benchmark = MmVet(mmvet_folder(folder), MmVetSettings(judge="fake"))
    benchmark.out = folder / "run"
    return benchmark, judge


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", 0.5),
        (" 1.0 because", 1),
        ("0", 0),
        ("0.7.", 0.7),
        ("1.1", None),
        ("-0.1", None),
        ("nan", None),
        ("inf", None),
        ("Correctness: 0.5", None),
        ("", None),
        ("十", None),
    ],
)
def test_how_grades_are_read(reply: str, grade: float | None) -> None:
    assert read_grade(reply) == grade


def test_from_files_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, judge = graded(tmp_path, monkeypatch, "0.5", "1.0")
    rows, scores, model = run(benchmark, lambda text: "x = -1" if "x?" in text else "Ada", tmp_path / "run")
    assert [row.score for row in rows] == [0.5, 1] and [row.item.group for row in rows] == ["a.jpg", "b.jpg"]
    assert scores == {"overall": 75, "rec": 100, "ocr": 75, "math": 50}
    assert model.talks[0][0]["content"].endswith("step by step to be sure you get the right answer.")
    assert model.talks[0][1]["content"] == "<image_placeholder>\nWhat is x?"
    assert judge.asked[0][0].endswith("\nWhat is x? | -1 <AND> -5 | x = -1 | ") and judge.asked[0][1:] == (0, 0)
    assert judge.asked[1][0].endswith("\nWho? | Ada <OR> she | Ada | ")
    written = json.loads((tmp_path / "run" / "official" / "results" / "janusflow.json").read_text())
    assert written == {"v1_0": "x = -1", "v1_1": "Ada"}


def test_a_judge_without_a_number_is_asked_again_and_warmer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, judge = graded(tmp_path, monkeypatch, "well", "hm", "0.3")
    assert benchmark.judge(benchmark.items()[0], "4")["score"] == 0.3
    assert [asked[1:] for asked in judge.asked] == [(0, 0), (0.5, 1), (1, 2)]
    assert judge.asked[1][0].startswith(judge.asked[0][0]) and judge.asked[1][0] != judge.asked[0][0]


def test_a_judge_that_never_gives_a_number_has_graded_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, judge = graded(tmp_path, monkeypatch, "well")
    verdict = benchmark.judge(benchmark.items()[0], "4")
    assert verdict["score"] == 0 and "no number" in verdict["problem"] and len(judge.asked) == TRIES


def test_without_a_judge_it_says_so(tmp_path: Path) -> None:
    benchmark = MmVet(mmvet_folder(tmp_path), MmVetSettings())
    with pytest.raises(ValueError, match="MM-Vet needs a model that grades answers"):
        benchmark.judge(benchmark.items()[0], "4")


def test_it_judges_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judges_anything(graded(tmp_path, monkeypatch, "0.1")[0])


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_official_results_are_judged_and_written_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = json.loads((OFFICIAL / "mmvet" / "results" / "llava_llama2_13b_chat.json").read_text())
    benchmark, judge = graded(tmp_path, monkeypatch, "1.0")
    questions = {
        name: {"imagename": "a.jpg", "question": name, "answer": "?", "capability": ["gen"]} for name in answers
    }
    (tmp_path / "mm-vet.json").write_text(json.dumps(questions))
    rows, scores, _ = run(benchmark, lambda text: answers[text.split("\n")[-1]], tmp_path / "run")
    assert len(rows) == 218 and scores == {"overall": 100, "gen": 100}
    assert all(answer in asked for answer, (asked, _, _) in zip(answers.values(), judge.asked, strict=True))
    assert json.loads((tmp_path / "run" / "official" / "results" / "janusflow.json").read_text()) == answers


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    benchmark = MmVet(mmvet_folder(tmp_path), MmVetSettings())
    cut(tmp_path / "images" / "b.jpg")
    with pytest.raises(ValueError, match="b.jpg' is damaged or cut off.*; expected"):
        benchmark.items()
    (tmp_path / "images" / "b.jpg").unlink()
    with pytest.raises(ValueError, match="b.jpg is missing; expected"):
        benchmark.items()
    for content, said in (
        ("[]", "contains no questions"),
        ('{"v1_0": {}}', "v1_0 lacks one of imagename"),
        ("{", "is damaged"),
    ):
        (tmp_path / "mm-vet.json").write_text(content)
        with pytest.raises(ValueError, match=f"{said}.*; expected"):
            benchmark.items()


def test_a_judge_that_reasons_grades_with_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, judge = graded(tmp_path, monkeypatch, "<think>0.1? No.</think> 0.7", "<think>0.3")
    assert benchmark.judge(benchmark.items()[0], "an answer")["score"] == 0.7
    judge.replies = ["<think>0.3"]
    with pytest.raises(NotJudgedError, match="said nothing in 5 tries"):
        benchmark.judge(benchmark.items()[0], "an answer")
