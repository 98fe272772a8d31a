"""MMMU: hand-worked readings, what the official code read from a published model's answers, and runs over parquet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from janusflow.evaluation.benchmarks.mmmu import (
    Mmmu,
    MmmuSettings,
    open_is_right,
    read_choice,
    read_open,
)
from janusflow.evaluation.protocol import Item, Row
from tests.evaluation.benchmarks.questions import cut, judges_anything, run, save_picture

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
OPTIONS = {"A": "a red apple", "B": "two pears", "C": "nothing at all", "D": "$5"}


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("B.", "B"),
        ("Answer: B", "B"),
        ("(A) or rather (C)", "C"),  # the last mention wins
        ("(A), though B is close", "A"),  # brackets come before letters
        ("A or B", "B"),
        ("So it is A. That is not C", "C"),  # "A." is a form of MMMU-Pro's rules only
        ("I think that it must be two pears in the end", "B"),
        ("first a red apple, and later on nothing at all, I think", "C"),
        ("the price is $5 for all of the fruit", "D"),
    ],
)
def test_options_are_read(response: str, letter: str) -> None:
    assert read_choice(response, OPTIONS, Random(0)) == letter


def test_what_cannot_be_read_is_chosen_by_chance_with_a_seed() -> None:
    for response in ("", "two pears", "不知道", "x" * 100_000, "<b>?</b>"):
        found = [read_choice(response, OPTIONS, Random(seed)) for seed in range(40)]
        assert set(found) == set(OPTIONS)
        assert found == [read_choice(response, OPTIONS, Random(seed)) for seed in range(40)]


@pytest.mark.parametrize(
    ("response", "answers", "right"),
    [
        ("60", ("60",), True),
        ("300", ("60",), False),
        ("The result is 1,060.00.", ("1060",), True),
        ("so x = 0.334", ("0.33",), True),  # two places
        ("so x = 0.336", ("0.33",), False),
        ("1.2e3", ("1200",), True),
        ("It is a Fourier transformation.", ("Transformation",), True),
        ("it is transformed", ("Transformation",), False),
        ("the answer is c", ("C",), True),
        ("it may be c or d", ("C",), True),
        ("1/64", ("1/64",), True),
        ("seven", ("7", "seven"), True),
        ("", ("7",), False),
        ("1" * 100_000 + "e", ("7",), False),  # in no time
        ("so .5", ("0.5",), True),
        ("x = -3 - -4", ("-4",), True),
        ("The answer is \n5", ("5",), False),  # after an empty tail the next one counts, "is", and hides the 5
        ("so \n5", ("5",), True),
    ],
)
def test_open_answers_are_read(response: str, answers: tuple[str, ...], right: bool) -> None:
    assert open_is_right(read_open(response), answers) is right


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_same_options_are_read_as_by_the_official_code() -> None:
    folder = OFFICIAL / "mmmu" / "mmmu" / "example_outputs" / "llava1.5_13b"
    read = json.loads((folder / "total_val_output.json").read_text())
    records = [record for file in folder.glob("*/output.json") for record in json.loads(file.read_text())]
    assert len(records) == len(read) == 900
    by_chance = 0
    for record in records:
        if record["question_type"] == "multiple-choice":
            found = {read_choice(record["response"], record["index2ans"], Random(seed)) for seed in range(20)}
            assert read[record["id"]] in found
            by_chance += len(found) > 1
    assert by_chance == 2  # "C) ..." is no form that the rules know


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_published_answers_get_the_official_accuracy_through_the_benchmark(tmp_path: Path) -> None:
    folder = OFFICIAL / "mmmu" / "mmmu"
    right = json.loads((folder / "answer_dict_val.json").read_text())
    read = json.loads((folder / "example_outputs" / "llava1.5_13b" / "total_val_output.json").read_text())
    records = [
        r for file in folder.glob("example_outputs/llava1.5_13b/*/output.json") for r in json.loads(file.read_text())
    ]
    benchmark, rows = Mmmu(tmp_path, MmmuSettings()), []
    for record in records:
        name, truth = record["id"], right[record["id"]]["ground_truth"]
        answers = truth if isinstance(truth, list) else [truth]
        options = record.get("index2ans", {}) if record["question_type"] == "multiple-choice" else {}
        subject = "_".join(name.split("_")[1:-1])
        item = Item(name, "?", data={"subject": subject, "options": options, "answers": answers})
        said = record["response"]
        said = read[name] if options and said.startswith("C) ") else said  # what was read by chance then
        rows.append(Row(item, said, benchmark.judge(item, said)))
    scores = benchmark.scores(rows)
    assert len(rows) == 900 and scores["overall"] == pytest.approx(36.4, abs=0.3)  # the leaderboard's LLaVA-1.5-13B
    assert sum(name.startswith("domain/") for name in scores) == 6 and "domain/other" not in scores
    assert sum(name.startswith("subject/") for name in scores) == 30


def mmmu_folder(folder: Path, **changes: Any) -> Path:
    """Three questions of two subjects in the hub's form; `changes` are to the first."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [save_picture(folder / "made" / f"{seed}.jpg", seed) for seed in range(3)]
    none = {f"image_{number}": None for number in range(1, 8)}
    held = [
        {f"image_{number}": {"bytes": content, "path": "x.jpg"}} for number, content in enumerate(pictures, start=1)
    ]
    options = "['a <image 2>', \"b's\", 'c <image 3>']"
    first = {
        "id": "validation_Art_Theory_1",
        "question": "Which is like <image 1>?",
        "options": options,
        "answer": "B",
        "question_type": "multiple-choice",
        **none,
        **held[0],
        **held[1],
        **held[2],
    }
    second = {**first, "id": "validation_Art_Theory_2", "answer": "A", **none, **held[0]}
    open_one = {
        **second,
        "id": "validation_Math_3",
        "options": "[]",
        "answer": "['7', 'seven']",
        "question_type": "open",
    }
    for subject, rows in {"Art_Theory": [first | changes, second], "Math": [open_one]}.items():
        file = folder / subject / "validation-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return folder


def test_from_files_to_scores(tmp_path: Path) -> None:
    benchmark = Mmmu(mmmu_folder(tmp_path), MmmuSettings())
    said = iter(["B", "C", "It is seven."])
    rows, scores, model = run(benchmark, lambda text: next(said), tmp_path / "run")
    assert [row.score for row in rows] == [1, 0, 1]
    assert scores == pytest.approx(
        {
            "overall": 200 / 3,
            "domain/art and design": 50,
            "domain/science": 100,
            "subject/Art_Theory": 50,
            "subject/Math": 100,
        }
    )
    assert model.talks[0][0] == {"role": "system", "content": ""}
    asked = [talk[-1]["content"] for talk in model.talks]
    letter = "Answer with the option's letter from the given choices directly."
    listed = "Which is like <image 1>?\nA. a <image 2>\nB. b's\nC. c <image 3>\n\n"
    assert asked[0] == "<image_placeholder>" * 3 + "\n" + listed + letter
    assert asked[1] == "<image_placeholder>\n" + listed + letter
    assert asked[2] == "<image_placeholder>\nWhich is like <image 1>?\nAnswer the question directly."
    assert model.talks[0][-1]["images"] == [(tmp_path / "made" / f"{seed}.jpg").read_bytes() for seed in range(3)]
    written = json.loads((tmp_path / "run" / "official" / "total_val_output.json").read_text())
    assert written == {
        "validation_Art_Theory_1": "B",
        "validation_Art_Theory_2": "C",
        "validation_Math_3": "It is seven.",
    }


def test_pictures_can_stand_where_the_question_has_them(tmp_path: Path) -> None:
    folder = mmmu_folder(tmp_path, question="Is <image 3> like <image 1> or <image 3> again?", options="['x', 'y']")
    made = [(tmp_path / "made" / f"{seed}.jpg").read_bytes() for seed in range(3)]
    item = Mmmu(folder, MmmuSettings(prompt="interleaved")).items()[0]
    mark = "<image_placeholder>"
    assert item.prompt.startswith(f"{mark}\nIs {mark} like {mark} or {mark} again?\nA. x\n")
    assert item.images == (made[1], made[2], made[0], made[2])  # the one without a place comes first
    plain = Mmmu(folder, MmmuSettings(prompt="plain")).items()[0]
    assert plain.prompt.endswith("A. x\nB. y") and plain.system is None and plain.images == item.images


def test_the_official_prompt_is_that_of_the_published_configuration(tmp_path: Path) -> None:
    items = Mmmu(mmmu_folder(tmp_path), MmmuSettings(prompt="official")).items()
    assert items[1].prompt == (
        "<image_placeholder>\nWhich is like <image 1>?\n\n(A) a <image 2>\n(B) b's\n(C) c <image 3>\n\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert items[2].prompt.endswith("like <image 1>?\n\nAnswer the question using a single word or phrase.")


def test_chance_depends_on_the_seed_and_the_question_alone(tmp_path: Path) -> None:
    folder = mmmu_folder(tmp_path)
    items = Mmmu(folder, MmmuSettings()).items()
    drawn = [
        [Mmmu(folder, MmmuSettings(seed=seed)).judge(item, "")["said"] for seed in range(30)] for item in items[:2]
    ]
    assert set(drawn[0]) == {"A", "B", "C"} and drawn[0] != drawn[1]
    again = [Mmmu(folder, MmmuSettings(seed=seed)).judge(items[1], "?")["said"] for seed in range(30)]
    assert again == drawn[1]


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(Mmmu(mmmu_folder(tmp_path), MmmuSettings()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": "['a'"}, "question 'validation_Art_Theory_1' cannot be read"),
        ({"answer": "D"}, "no such option"),
        ({"options": "[]"}, "no such option"),
        ({"image_1": {"bytes": b"\xff\xd8\xff", "path": ""}}, "picture 1 of validation_Art_Theory_1 .*not a readable"),
    ],
)
def test_it_names_damaged_questions(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}.*; expected"):
        Mmmu(mmmu_folder(tmp_path, **change), MmmuSettings()).items()


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no SUBJECT/validation-.*; expected"):
        Mmmu(tmp_path, MmmuSettings()).items()
    benchmark = Mmmu(mmmu_folder(tmp_path), MmmuSettings())
    file = tmp_path / "Math" / "validation-00000-of-00001.parquet"
    cut(file)
    with pytest.raises(ValueError, match=r"Math/validation-00000-of-00001.parquet is damaged.*; expected"):
        benchmark.items()
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{"id": "a", "question": "?"}]), file)
    with pytest.raises(ValueError, match="is another version: it has no column options, answer.*; expected"):
        benchmark.items()
