"""VQAv2: the official normalization and soft accuracy by hand, and a run over data in the official form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.benchmarks.vqav2 import VqaV2, VqaV2Settings, accuracy, normal
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.questions import Answering, cut, judges_anything, run, save_picture


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        ("A dog and the cat", "dog and cat"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("don't know", "don't know"),  # an apostrophe is no mark
        ("couldntve", "couldntve"),  # without both of its apostrophes it is in no table
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),  # the official table's slip
        ("x-ray", "x ray"),  # a mark between letters becomes a space
        ("x - ray", "x ray"),  # next to a space it goes
        ("left-right, up -down", "leftright up down"),  # and then everywhere
        ("1,000", "1000"),
        ("red/blue 1,000", "redblue 1000"),  # a comma in a number drops all marks
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("end.", "end"),
        ("." * 40 + "x", "." * 8 + "x"),  # thirty-two periods go
        ("", ""),
    ],
)
def test_answers_are_normalized(answer: str, expected: str) -> None:
    assert normal(answer) == expected


@pytest.mark.parametrize(
    ("matches", "expected"),
    [(0, 0), (1, 9 / 30), (2, 18 / 30), (3, 27 / 30), (4, 1), (9, 1)],  # 3 of 10: three times 2/3, seven times 1
)
def test_the_accuracy_leaves_each_person_out(matches: int, expected: float) -> None:
    assert accuracy("cat", {"cat": matches, "dog": 10 - matches}) == pytest.approx(expected)


def test_answers_are_normalized_where_people_differ_alone() -> None:
    assert accuracy("Yes", {"yes": 10}) == 0 and accuracy("yes", {"yes": 10}) == 1
    assert accuracy("Yes", {"yes": 9, "no": 1}) == 1
    assert accuracy("yes\n", {" yes": 10}) == 1  # white space around goes always
    assert accuracy("2", {"two": 2, "2": 2, "three": 6}) == 1  # what is equal then counts together


def vqa_folder(folder: Path, split: str = "val2014") -> Path:
    """Two questions over one picture, in the official form."""
    info = {"version": "2.0"}
    questions = [{"question_id": number, "image_id": 9, "question": f"What {number}?"} for number in (90, 91)]
    people = {90: ["yes"] * 10, 91: ["two dogs"] * 2 + ["2 dogs"] + ["cat"] * 7}
    annotations = [
        {
            "question_id": number,
            "question_type": "what",
            "answer_type": "yes/no" if number == 90 else "other",
            "answers": [{"answer": answer, "answer_id": place} for place, answer in enumerate(answers, start=1)],
        }
        for number, answers in people.items()
    ]
    files: dict[str, Any] = {f"v2_OpenEnded_mscoco_{split}_questions.json": {"info": info, "questions": questions}}
    if split == "val2014":
        files["v2_mscoco_val2014_annotations.json"] = {"info": info, "annotations": annotations}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    pictures = split.replace("-dev", "")
    save_picture(folder / pictures / f"COCO_{pictures}_000000000009.jpg")
    return folder


def test_from_files_to_scores(tmp_path: Path) -> None:
    benchmark = VqaV2(vqa_folder(tmp_path), VqaV2Settings())
    rows, scores, model = run(benchmark, lambda text: "Yes." if "90" in text else "Two dogs", tmp_path / "run")
    assert [row.score for row in rows] == pytest.approx([1, 0.9])
    assert scores == pytest.approx({"overall": 95, "question_type/what": 95, "other": 90, "yes/no": 100})
    assert model.talks[0][1]["content"] == (
        "<image_placeholder>\nWhat 90?\nAnswer the question using a single word or phrase."
    )
    name = "v2_OpenEnded_mscoco_val2014_janusflow_results.json"
    written = json.loads((tmp_path / "run" / "official" / name).read_text())
    assert written == [{"question_id": 90, "answer": "yes"}, {"question_id": 91, "answer": "2 dogs"}]


def test_answers_that_are_not_prepared_are_scored_as_they_are(tmp_path: Path) -> None:
    benchmark = VqaV2(vqa_folder(tmp_path), VqaV2Settings(prepare=False))
    agreed, _ = benchmark.items()
    assert benchmark.judge(agreed, "Yes")["score"] == 0 and benchmark.judge(agreed, "yes")["score"] == 1


@pytest.mark.parametrize(("split", "part"), [("test", "test2015"), ("test-dev", "test-dev2015")])
def test_a_test_split_has_a_file_for_evalai_and_no_score(tmp_path: Path, split: Any, part: str) -> None:
    request = EvalRequest("vqav2", tmp_path / "run", data=vqa_folder(tmp_path, part), settings={"split": split})
    report = evaluate(request, model=Answering(lambda text: "Yes"))
    file = tmp_path / "run" / "official" / f"v2_OpenEnded_mscoco_{part}_janusflow_results.json"
    assert [one["answer"] for one in json.loads(file.read_text())] == ["yes", "yes"]
    assert report["scores"] == {} and list(report["data_sha256"]) == [
        f"v2_OpenEnded_mscoco_{part}_questions.json",
        "1 pictures",
    ]
    assert set(report["not_judged"].values()) == {f"only EvalAI has the answers of split {split}; upload {file}"}


def test_questions_about_another_picture_are_asked_again(tmp_path: Path) -> None:
    data = vqa_folder(tmp_path)
    request = EvalRequest("vqav2", tmp_path / "run", data=data)
    evaluate(request, model=Answering(lambda text: "Yes"))
    save_picture(data / "val2014" / "COCO_val2014_000000000009.jpg", seed=1)
    with pytest.warns(UserWarning, match="1 pictures changed .* 2 outputs made again: 90, 91; changed items are"):
        evaluate(request, model=Answering(lambda text: "Yes"))


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(VqaV2(vqa_folder(tmp_path), VqaV2Settings()))


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    benchmark = VqaV2(vqa_folder(tmp_path), VqaV2Settings())
    file = tmp_path / "v2_mscoco_val2014_annotations.json"
    whole = json.loads(file.read_text())
    cut(tmp_path / "val2014" / "COCO_val2014_000000000009.jpg")
    with pytest.raises(ValueError, match="is damaged or cut off.*; expected"):
        benchmark.items()
    (tmp_path / "val2014" / "COCO_val2014_000000000009.jpg").unlink()
    with pytest.raises(ValueError, match="COCO_val2014_000000000009.jpg is missing; expected"):
        benchmark.items()
    vqa_folder(tmp_path)
    for content, said in (
        ({"info": {"version": "1.0"}, "annotations": []}, "is of version 1.0, not 2.0"),
        ({"annotations": whole["annotations"][:1]}, "question 91 has no annotation"),
        ({"annotations": [{**whole["annotations"][0], "answers": []}]}, "question 90 has no answers"),
        ({"annotations": [{"question_id": 90}]}, "a record lacks question_id, answers"),
        ({"questions": []}, "contains no list of annotations"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"{said}.*; expected"):
            benchmark.items()
    file.unlink()
    with pytest.raises(ValueError, match="annotations.json is missing; expected"):
        benchmark.items()
