"""WISE: what is read from a judge's reply, and both protocols' sums."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from janusflow.evaluation.wise import LEGACY, VERIFIED, overall, read_legacy, read_prompts, read_verified, wiscore

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))


def test_the_weights_of_both_protocols_sum_to_one() -> None:
    for protocol in (LEGACY, VERIFIED):
        assert sum(weight for _, weight in protocol.categories.values()) == pytest.approx(1)
        assert protocol.size == 1000


def test_wiscore() -> None:
    assert wiscore({"consistency": 2, "realism": 2, "aesthetic quality": 2}) == pytest.approx(1)
    assert wiscore({"consistency": 1, "realism": 2, "aesthetic quality": 0}) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0", (2, 1, 0)),
        ("Consistency: 1, realism: 1, aesthetic quality: 2", (1, 1, 2)),
        ("Consistency: 1? No.\nConsistency: 2\nRealism: 2\nAesthetic Quality: 2", (2, 2, 2)),
        ("Consistency: 2\nRealism: 1", None),
        ("Consistency: 7\nRealism: 1\nAesthetic Quality: 1", None),
        ("", None),
        ("sorry", None),
    ],
)
def test_legacy_replies(reply: str, scores: tuple[int, ...] | None) -> None:
    found = read_legacy(reply)
    assert (None if found is None else tuple(found.values())) == scores


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 1", 1),
        ("reasons...\n**Score**: 0", 0),
        ("Score: 0\nno, Score: 1", 1),
        ("score:1", 1),
        ("Score: 10", None),
        ("Score: 0.5", None),
        ("1", None),
    ],
)
def test_verified_replies(reply: str, score: int | None) -> None:
    assert read_verified(reply) == score


def test_categories_by_id() -> None:
    assert [LEGACY.category(number) for number in (1, 400, 401, 567, 568, 700, 701, 1000)] == [
        "culture",
        "culture",
        "time",
        "time",
        "space",
        "space",
        "biology",
        "chemistry",
    ]
    assert VERIFIED.category(567) == "space" and VERIFIED.category(521) == "space"
    for number in (0, 1001):
        with pytest.raises(ValueError, match=f"prompt_id is {number}"):
            VERIFIED.category(number)


def test_the_overall_score_is_a_weighted_sum() -> None:
    scores = {number: float(number <= 400) for number in range(1, 1001)}
    assert overall(LEGACY, scores)["overall"] == pytest.approx(0.4)
    assert overall(VERIFIED, {**scores, 401: 1.0})["overall"] == pytest.approx(0.4 + 0.12 / 120)
    assert "overall" not in overall(LEGACY, {1: 1.0})
    with pytest.raises(ValueError, match="score of prompt 3 is 2"):
        overall(LEGACY, {3: 2.0})


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "wise.json"
    for content, said in (("{", "is damaged"), ("{}", "holds no list"), ('[{"prompt_id": 1}]', "record 1")):
        file.write_text(content)
        with pytest.raises(ValueError, match=said):
            read_prompts(file)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_official_prompts_are_where_the_protocols_say() -> None:
    verified = read_prompts(OFFICIAL / "wise" / "data_verified" / "merge.json")
    assert [prompt.number for prompt in sorted(verified, key=lambda one: one.number)] == list(range(1, 1001))
    files = sorted((OFFICIAL / "wise" / "WISE_legacy" / "data").glob("*.json"))
    legacy = [prompt for file in files if "rewrite" not in file.name for prompt in read_prompts(file)]
    assert sorted(prompt.number for prompt in legacy) == list(range(1, 1001))
