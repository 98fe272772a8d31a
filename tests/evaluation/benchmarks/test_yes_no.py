"""Yes or no: POPE's and MME's rules on answers in the wild, official files, and runs over data in the official form.

What the tests of all benchmarks of questions share stands here too: a model that answers by a function, and one run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janusflow.evaluation.benchmarks import mme, pope
from janusflow.evaluation.benchmarks.mmbench import UNSTATED
from janusflow.evaluation.benchmarks.mme import Mme, MmeQuestion, MmeScore
from janusflow.evaluation.benchmarks.pope import BriefSettings, Pope, PopeSettings
from janusflow.evaluation.protocol import Benchmark, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import checked_run, evaluate

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
official = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")

WILD = (
    "",
    " ",
    "\n\t",
    "不知道 🙂 \u202e",
    "<html><b>no</b></html>",
    "1" * 100_000,
    "so is " * 20_000,
    "a, b. " * 17_000,
)


class Answering:
    """Stands for a pipeline: answers by a function of the question, and keeps the conversations that it was given."""

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says, self.talks = says, list[Sequence[Mapping[str, Any]]]()
        self.processor = self

    def question(self, text: str, images: int) -> str:
        placed = text.count("<image_placeholder>")
        assert placed in (0, images)
        return text if placed else "<image_placeholder>\n" * images + text

    def chat_batch(self, talks: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        self.talks += talks
        return [self.says(talk[-1]["content"]) for talk in talks]


def run(
    benchmark: Benchmark, says: Callable[[str], str], out: Path, *, whole: bool = True
) -> tuple[list[Row], dict[str, float], Answering]:
    """All of a benchmark: its rows, its scores (if `whole`, the main one among them) and the model that was asked."""
    benchmark.out = out
    model, items = Answering(says), benchmark.items()
    assert len({item.key for item in items}) == len(items)
    outputs = [output for item in items for output in benchmark.produce(model, [item], {})]
    rows = [Row(item, str(output), benchmark.judge(item, output)) for item, output in zip(items, outputs, strict=True)]
    json.dumps([[dict(row.item.data), dict(row.verdict)] for row in rows])
    benchmark.write_official([Row(row.item, row.output, {}) for row in rows])
    benchmark.write_judged(rows)
    assert benchmark.files() and all(file.is_file() for file in benchmark.files())
    scores = benchmark.scores(rows)
    assert (benchmark.main in scores) == whole
    published = set().union(*map(set, benchmark.published.values()))
    assert not whole or published <= {*scores, UNSTATED}
    assert benchmark.scores(rows * 3) == pytest.approx(scores)  # the bootstrap draws some several times
    benchmark.scores(rows[:1])
    assert benchmark.scores([]) == {}
    return rows, scores, model


def judges_anything(benchmark: Benchmark) -> None:
    """Whatever is said gets a verdict with a score from 0 to 1."""
    for item in benchmark.items():
        for answer in WILD:
            assert 0 <= benchmark.judge(item, answer)["score"] <= 1


def save_picture(file: Path, seed: int = 0) -> bytes:
    """A small JPEG; its bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.read_bytes()


def cut(file: Path) -> None:
    """Leaves the first half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


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
            "content": f"<image_placeholder>\nIs there a random dog?\n{pope.BRIEFLY}",
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
