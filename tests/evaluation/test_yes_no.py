"""POPE and MME: hand-worked cases for each rule, and the official files where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from janusflow.evaluation import mme, pope
from janusflow.evaluation.mme import MmeQuestion, MmeScore

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
official = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")


# --- POPE -----------------------------------------------------------------------------------------------------------


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
    found = pope.score(labels, ["yes", "yes", "no", "yes", "no"])
    assert found.accuracy == pytest.approx(3 / 5) and found.yes_ratio == pytest.approx(3 / 5)
    assert found.precision == pytest.approx(2 / 3) and found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / 3)
    never = pope.score(labels, ["no"] * 5)
    assert (never.precision, never.recall, never.f1, never.accuracy) == (0, 0, 0, pytest.approx(2 / 5))
    with pytest.raises(ValueError, match="4 answers were given to 5"):
        pope.score(labels, ["yes"] * 4)


@official
def test_pope_reads_both_official_forms() -> None:
    files = sorted((OFFICIAL / "pope" / "output").rglob("*.json"))
    assert len(files) == 9
    for file in files:
        questions = pope.read_questions(file)
        assert len(questions) in (2910, 3000) and {type(q.label) for q in questions} == {bool}
        perfect = pope.score([q.label for q in questions], ["Yes" if q.label else "No" for q in questions])
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


# --- MME ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ("Yes", True),
        (" yes.", True),
        ("No, it is not", False),
        ("yes and no", True),
        ("not sure", False),  # "no" is in "not "
        ("know", False),  # in the first four characters
        ("I do not", None),
        ("The answer is yes", None),
        ("", None),
        ("ja", None),
        ("NO" * 50_000, False),
    ],
)
def test_how_mme_reads_answers(answer: str, meaning: bool | None) -> None:
    assert mme.reads(answer) is meaning


def test_mme_scores_by_hand() -> None:
    questions = [MmeQuestion(image, "?", label) for image in "ab" for label in (True, False)]
    found = mme.score_task(questions, ["yes", "no", "yes", "yes"])
    assert (found.accuracy, found.accuracy_plus, found.score) == (0.75, 0.5, 125)
    assert mme.score_task(questions, ["perhaps"] * 4).score == 0
    with pytest.raises(ValueError, match="picture a has 1 questions"):
        mme.score_task(questions[1:], ["no"] * 3)
    assert mme.totals({task: MmeScore(1, 1) for task in mme.COGNITION}) == {"cognition": 800}


@official
def test_mme_of_lavin_is_what_its_authors_published() -> None:
    scores = {}
    for file in sorted((OFFICIAL / "mme" / "LaVIN").glob("*.txt")):
        questions = mme.read_task(file)
        scores[file.stem] = mme.score_task(questions, [q.answer or "" for q in questions])
    found = mme.totals(scores)
    assert found["perception"] == pytest.approx(963.61, abs=0.01)
    assert found["cognition"] == pytest.approx(249.64, abs=0.01)


def test_mme_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "color.txt").write_text("a.jpg\tIs it?\tYes\nb.jpg\tIs it?\tMaybe\n")
    with pytest.raises(ValueError, match="line 2 is not MME's"):
        mme.read_task(tmp_path / "color.txt")
