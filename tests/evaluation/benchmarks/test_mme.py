"""MME: its rule on answers in the wild, official files, and runs over data in the official form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from janusflow.evaluation.benchmarks import mme
from janusflow.evaluation.benchmarks.mme import Mme, MmeQuestion, MmeScore
from janusflow.evaluation.protocol import Row
from janusflow.evaluation.question_forms import BriefSettings
from tests.evaluation.benchmarks.questions import OFFICIAL, cut, judges_anything, official, run, save_picture


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
        ("   no", None),  # white space counts among the four
        ("\n\n yes", None),
        (" no", False),
        ("ja", None),
        ("NO" * 50_000, False),
    ],
)
def test_how_mme_reads_answers(answer: str, meaning: bool | None) -> None:
    assert mme.reads(answer) is meaning


def of_task(questions: Sequence[MmeQuestion], answers: Sequence[str]) -> MmeScore:
    return mme.score(
        [(q.image, str(n), mme.reads(a) is q.label) for n, (q, a) in enumerate(zip(questions, answers, strict=True))]
    )


def test_mme_scores_by_hand() -> None:
    questions = [MmeQuestion(image, "?", label) for image in "ab" for label in (True, False)]
    found = of_task(questions, ["yes", "no", "yes", "yes"])
    assert (found.accuracy, found.accuracy_plus, found.score) == (0.75, 0.5, 125)
    assert of_task(questions, ["perhaps"] * 4).score == 0
    assert of_task(questions[1:], ["no"] * 3).accuracy_plus == 0, "a picture with one question is not a pair"
    assert mme.totals({task: MmeScore(1, 1) for task in mme.COGNITION}) == {"cognition": 800}


@official
def test_mme_of_lavin_is_what_its_authors_published() -> None:
    scores = {}
    for file in sorted((OFFICIAL / "mme" / "LaVIN").glob("*.txt")):
        questions = mme.read_task(file)
        scores[file.stem] = of_task(questions, [q.answer or "" for q in questions])
    found = mme.totals(scores)
    assert found["perception"] == pytest.approx(963.61, abs=0.01)
    assert found["cognition"] == pytest.approx(249.64, abs=0.01)


@official
def test_mme_of_lavin_goes_through_the_benchmark_too(tmp_path: Path) -> None:
    answers = {}
    for file in sorted((OFFICIAL / "mme" / "LaVIN").glob("*.txt")):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        for question in mme.read_task(file):
            answers[file.stem, question.image, question.text] = question.answer or ""
            picture = tmp_path / file.stem / question.image
            if not picture.exists():
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(b"\xff\xd8\xff\xd9")
    benchmark = Mme(tmp_path, BriefSettings())
    rows = []
    for item in benchmark.items():
        answer = answers[item.data["task"], item.data["image"], item.data["question"]]
        rows.append(Row(item, answer, benchmark.judge(item, answer)))
    assert len(rows) == 2374
    scores = benchmark.scores(rows)
    assert scores["perception"] == pytest.approx(963.61, abs=0.01)
    assert scores["cognition"] == pytest.approx(249.64, abs=0.01)


def test_mme_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "color.txt").write_text("a.jpg\tIs it?\tYes\nb.jpg\tIs it?\tMaybe\n")
    with pytest.raises(ValueError, match="line 2 is not MME's"):
        mme.read_task(tmp_path / "color.txt")


def mme_folder(folder: Path) -> Path:
    """Fourteen tasks of two pictures each, some with their pictures in a folder of their own."""
    for task in (*mme.PERCEPTION, *mme.COGNITION):
        lines = [f"{name}.jpg\tIs {name} {word}?\t{word}" for name in "ab" for word in ("Yes", "No")]
        (folder / "Your_Results").mkdir(parents=True, exist_ok=True)
        (folder / "Your_Results" / f"{task}.txt").write_text("\n".join(lines) + "\n")
        for name in "ab":
            save_picture(folder / task / ("images" if task == "scene" else "") / f"{name}.jpg")
    return folder


def test_mme_from_files_to_scores(tmp_path: Path) -> None:
    benchmark = Mme(mme_folder(tmp_path), BriefSettings())

    def says(text: str) -> str:
        return "perhaps\tso\n" if "Is b No" in text else "Yes" if "Yes?" in text else "no, it\nis not"

    rows, scores, model = run(benchmark, says, tmp_path / "run")
    assert len(rows) == 56 and rows[0].item.group == rows[1].item.group == "existence/a.jpg"
    assert model.talks[0][1]["content"].endswith("Is a Yes?\nAnswer the question using a single word or phrase.")
    assert scores["count"] == 100 * (3 / 4 + 1 / 2)
    assert scores["perception"] == 1250 and scores["cognition"] == 500
    file = tmp_path / "run" / "official" / "Your_Results" / "OCR.txt"
    assert file.read_text().splitlines()[1] == "a.jpg\tIs a No?\tNo\tno, it is not"
    read_back = mme.read_task(file)
    assert [question.answer for question in read_back][2:] == ["Yes", "perhaps so"]
    assert mme.one_line("\n\u2028 yes\t\n") == "   yes", "the official scorer reads what was judged here"


def test_a_picture_of_mme_without_its_second_question_counts_in_the_accuracy_alone(tmp_path: Path) -> None:
    benchmark = Mme(mme_folder(tmp_path), BriefSettings())
    rows, _, _ = run(benchmark, lambda text: "Yes" if "Yes?" in text else "No", tmp_path / "run")
    assert benchmark.scores(rows[:3]) == {"existence": 200}
    assert benchmark.scores(rows[2:3]) == {"existence": 100}


def test_mme_judges_anything(tmp_path: Path) -> None:
    judges_anything(Mme(mme_folder(tmp_path), BriefSettings()))


def test_mme_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    benchmark = Mme(mme_folder(tmp_path), BriefSettings())
    cut(tmp_path / "scene" / "images" / "b.jpg")
    with pytest.raises(ValueError, match="b.jpg' is damaged or cut off.*; expected"):
        benchmark.items()
    (tmp_path / "Your_Results" / "color.txt").write_text("a.jpg\tIs it?\tMaybe\n")
    with pytest.raises(ValueError, match="color.txt: line 1 is not MME's.*; expected"):
        benchmark.items()
    (tmp_path / "Your_Results" / "color.txt").unlink()
    with pytest.raises(ValueError, match="color.txt is missing; expected"):
        benchmark.items()
