"""MMMU: hand-worked readings, and the options that the official code read from a published model's answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest

from janusflow.evaluation.mmmu import MmmuQuestion, open_is_right, read_choice, read_open, score

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
    ],
)
def test_open_answers_are_read(response: str, answers: tuple[str, ...], right: bool) -> None:
    assert open_is_right(read_open(response), answers) is right


def test_the_score_is_the_share_of_all_questions() -> None:
    questions = [MmmuQuestion("a", OPTIONS, ("B",)), MmmuQuestion("b", OPTIONS, ("A",)), MmmuQuestion("c", {}, ("7",))]
    assert score(questions, ["B", "(C)", "7"]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="1 answers were given to 3"):
        score(questions, ["B"])


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
