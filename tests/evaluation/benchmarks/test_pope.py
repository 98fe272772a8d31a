"""POPE: its rule on answers in the wild, official files, and runs over data in the official form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.benchmarks import pope
from janusflow.evaluation.benchmarks.pope import Pope, PopeSettings
from janusflow.evaluation.question_forms import BRIEFLY
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import checked_run, evaluate
from tests.evaluation.benchmarks.questions import OFFICIAL, Answering, cut, judges_anything, official, run, save_picture


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("yes, there is a dog", True),
        ("No", False),
        ("no, there is none", False),
        ("There is not a dog. Yes.", False),
        ("Yes. There is no cat.", True),  # the first sentence alone
        ("NO", True),  # capitals are no "No"
        ("nothing", True),
        ("no,", False),  # commas are dropped
        ("no\nno", True),  # split at spaces alone
        ("", True),
        ("không có", True),
        ("x" * 100_000, True),
        ("<p>no</p>", True),
    ],
)
def test_how_pope_reads_answers(answer: str, yes: bool) -> None:
    assert pope.says_yes(answer) is yes


def test_pope_scores_by_hand() -> None:
    labels = [True, True, True, False, False]
    found = pope.score(labels, [True, True, False, True, False])
    assert found.accuracy == pytest.approx(3 / 5) and found.yes_ratio == pytest.approx(3 / 5)
    assert found.precision == pytest.approx(2 / 3) and found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / 3)
    never = pope.score(labels, [False] * 5)
    assert (never.precision, never.recall, never.f1, never.accuracy) == (0, 0, 0, pytest.approx(2 / 5))


@official
def test_pope_reads_both_official_forms() -> None:
    files = sorted((OFFICIAL / "pope" / "output").rglob("*.json"))
    assert len(files) == 9
    for file in files:
        questions = pope.read_questions(file)
        assert len(questions) in (2910, 3000) and {type(q.label) for q in questions} == {bool}
        perfect = pope.score(
            [q.label for q in questions], [pope.says_yes("Yes" if q.label else "No") for q in questions]
        )
        assert perfect.accuracy == perfect.f1 == 1 and 0.4 < perfect.yes_ratio < 0.6
    lines = (OFFICIAL / "pope" / "answer" / "example.json").read_text().splitlines()
    assert all(isinstance(pope.says_yes(json.loads(line)["answer"]), bool) for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question_id": 1', "is damaged"),
        ('[{"question_id": 1, "image": "a.jpg", "text": "?"}]', "record 1 is not POPE's"),
        ('{"question_id": 1, "image": "a.jpg", "text": "?", "label": "maybe"}', "record 1"),
        ("[7]", "record 1"),
    ],
)
def test_pope_refuses_other_files(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "pope.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        pope.read_questions(tmp_path / "pope.json")


def pope_folder(folder: Path) -> Path:
    """Two pictures with a question of each answer in each set."""
    for kind in pope.SETS:
        lines = [
            {"question_id": number, "image": f"{image}.jpg", "text": f"Is there a {kind} {thing}?", "label": label}
            for number, (image, thing, label) in enumerate(
                [("a", "dog", "yes"), ("a", "cat", "no"), ("b", "dog", "yes"), ("b", "cat", "no")], start=1
            )
        ]
        (folder / f"coco_pope_{kind}.json").write_text("\n".join(map(json.dumps, lines)))
    for name in "ab":
        save_picture(folder / "val2014" / f"{name}.jpg")
    return folder


def test_pope_from_files_to_scores(tmp_path: Path) -> None:
    pope_folder(tmp_path)
    benchmark = Pope(tmp_path, PopeSettings())
    rows, scores, model = run(benchmark, lambda text: "No." if "random" in text else "Yes", tmp_path / "run")
    assert len(rows) == 12 and rows[0].item.key == "random/00001" and rows[0].item.group == "a.jpg"
    assert model.talks[0] == [
        {"role": "system", "content": ""},
        {
            "role": "user",
            "content": f"<image_placeholder>\nIs there a random dog?\n{BRIEFLY}",
            "images": [tmp_path / "val2014" / "a.jpg"],
        },
    ]
    assert scores["accuracy"] == pytest.approx(50) and scores["yes_ratio"] == pytest.approx(200 / 3)
    assert scores["random/f1"] == 0 and scores["popular/f1"] == scores["adversarial/f1"] == pytest.approx(200 / 3)
    assert scores["f1"] == pytest.approx(400 / 9) and scores["precision"] == pytest.approx(100 / 3)
    assert scores["recall"] == pytest.approx(200 / 3)
    answers = (tmp_path / "run" / "official" / "answer" / "coco_pope_popular.json").read_text().splitlines()
    assert json.loads(answers[1]) == {"question": "Is there a popular cat?", "answer": "Yes"} and len(answers) == 4


def test_pope_asked_plainly_has_the_models_own_system_prompt(tmp_path: Path) -> None:
    item = Pope(pope_folder(tmp_path), PopeSettings(prompt="plain")).items()[0]
    assert item.prompt == "Is there a random dog?" and item.system is None


def test_pope_judges_anything(tmp_path: Path) -> None:
    judges_anything(Pope(pope_folder(tmp_path), PopeSettings()))


def test_pope_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data folder was given; expected"):
        Pope(None, PopeSettings()).items()
    with pytest.raises(ValueError, match="coco_pope_random.json is missing; expected .* RUCAIBox/POPE"):
        Pope(tmp_path, PopeSettings()).items()
    benchmark = Pope(pope_folder(tmp_path), PopeSettings())
    cut(tmp_path / "val2014" / "b.jpg")
    with pytest.raises(ValueError, match=r"b.jpg' is damaged or cut off: .*; expected"):
        benchmark.items()
    (tmp_path / "val2014" / "b.jpg").unlink()
    with pytest.raises(ValueError, match="b.jpg is missing; expected"):
        benchmark.items()
    file = tmp_path / "coco_pope_random.json"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match="coco_pope_random.json is damaged.*; expected"):
        benchmark.items()


@pytest.mark.parametrize(
    ("answer", "readable"),
    [
        *((answer, True) for answer in ("Yes", "yes, it is.", "No", "There is not.", "YES")),
        *((answer, False) for answer in ("", "There is a dog.", "NO", "Hm. No", "yesterday")),
    ],
)
def test_an_answer_that_pope_reads_only_by_default_is_unreadable(answer: str, readable: bool) -> None:
    assert pope.is_readable(answer) is readable


def test_answers_that_cannot_be_read_are_flagged_and_n_stands_with_each_score(tmp_path: Path) -> None:
    """Twelve answers that are neither yes nor no: POPE's rule gives F1 66.7, and the report warns."""
    (tmp_path / "data").mkdir()
    request = EvalRequest("pope", tmp_path / "run", data=pope_folder(tmp_path / "data"))

    class Vague(Answering):
        def chat_batch(self, talks: Any, **options: Any) -> list[str]:
            return super().chat_batch(talks)

    report = evaluate(request, model=Vague(lambda text: "A dog, I think"))
    assert report["scores"]["f1"] == pytest.approx(200 / 3)
    assert (report["unreadable"], report["items_unreadable"], report["n"]["f1"]) == (12, 12, 12)
    assert report["n"]["random/precision"] == 4 and report["n"]["random/recall"] == 2
    low, high = report["intervals_95"]["accuracy"]
    assert low < 30 and high > 70, "not 50 to 50"
    assert "f1" not in report["intervals_95"], "nor 66.7 to 66.7"
    for name in ("report.md", "report.html"):
        text = (tmp_path / "run" / name).read_text()
        assert "Unreadable answers: 12, in 12 of 12 items." in text
        assert "Too few to compare (n < 30)" in text.replace("&lt;", "<")
    assert "| f1 | 66.67 | 12 (few) |  |" in (tmp_path / "run" / "report.md").read_text()
    assert "f1, n = 12 (few)" in (tmp_path / "run" / "report.html").read_text()
    assert report["not_judged"] == {}


def test_a_limit_needs_its_own_pictures_only_and_takes_from_all_sets(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    request = EvalRequest("pope", tmp_path / "run", data=pope_folder(tmp_path / "data"), limit=3)
    chosen = checked_run(request).items
    assert [item.data["set"] for item in chosen] == list(pope.SETS)
    assert checked_run(request).items == chosen, "the same ones every time"
    needed = {item.group for item in chosen}
    for file in (tmp_path / "data" / "val2014").iterdir():
        if file.name not in needed:
            file.unlink()
    assert checked_run(request).items == chosen
    (tmp_path / "data" / "val2014" / min(needed)).unlink()
    with pytest.raises(ValueError, match=f"{min(needed)} is missing; expected .*RUCAIBox"):
        checked_run(request)
