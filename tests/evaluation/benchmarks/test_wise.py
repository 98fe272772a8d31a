"""WISE: what is read from a judge's reply, and both protocols' sums."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.wise import (
    FILES,
    LEGACY,
    VERIFIED,
    Wise,
    WiseSettings,
    overall,
    read_legacy,
    read_prompts,
    read_verified,
    wiscore,
)
from janusflow.evaluation.judges import open_judge as judges
from janusflow.evaluation.protocol import NotJudgedError, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.test_geneval import Oracle, Painter, run

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
        ("Here they are.\n2\n 1 \n0\n", (2, 1, 0)),
        ("2\n1", None),
        ("3\n1\n0", None),
        ("Realism: 1\n2\n1\n0", None),
    ],
)
def test_legacy_replies(reply: str, scores: tuple[int, ...] | None) -> None:
    found = read_legacy(reply)
    assert (None if found is None else tuple(found.values())) == scores


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("**Consistency** : ** 2\nRealism=1 aesthetic quality 0", (2, 1, 0)),
        ("Consistency\t2, Realism:**1** Aesthetic Quality** = **2", (2, 1, 2)),
        ("Consistency:= 2\nRealism: 1\nAesthetic Quality: 1", None),
        (f"Consistency: {'1' * 5000}\nRealism: 1\nAesthetic Quality: 1", None),
    ],
)
def test_marks_around_legacy_scores(reply: str, scores: tuple[int, ...] | None) -> None:
    found = read_legacy(reply)
    assert (None if found is None else tuple(found.values())) == scores


@pytest.mark.parametrize("filling", [" ", "*", "* ", ": *"])
def test_endless_replies_are_read_in_no_time(filling: str) -> None:
    reply = "".join(f"{name}{filling * 20_000}x" for name in ("Consistency", "Score:", "Score")) + filling * 20_000
    started = process_time()
    assert read_legacy(reply) is None and read_verified(reply) is None
    assert process_time() - started < 1


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 1", 1),
        ("reasons...\n**Score**: 0", 0),
        ("Score: 0\nno, Score: 1", 0),
        ("score:1", 1),
        ("**Score** **1**", 1),
        ("Score: 1.0", 1),
        ("Score: 10", None),
        ("Score: 2", None),
        ("It is all there.\n1\n", 1),
        ("1\n0", None),
        ("it scores 1", None),
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
    assert overall(LEGACY, scores.items())["overall"] == pytest.approx(0.4)
    assert overall(VERIFIED, {**scores, 401: 1.0}.items())["overall"] == pytest.approx(0.4 + 0.12 / 120)
    assert "overall" not in overall(LEGACY, [(1, 1.0)])
    with pytest.raises(ValueError, match="score of prompt 3 is 2"):
        overall(LEGACY, [(3, 2.0)])


def write_prompts(folder: Path, protocol: str, count: int = 1000) -> Path:
    """A data folder of one protocol."""
    folder.mkdir(exist_ok=True)
    records = [
        {"prompt_id": number, "Prompt": f"prompt {number}", "Explanation": f"meaning {number}", "Subcategory": "x"}
        for number in range(1, count + 1)
    ]
    for part, name in enumerate(FILES[protocol][1]):
        (folder / name).write_text(json.dumps(records[part::3]))
    return folder


def first(benchmark: Wise, count: int, monkeypatch: pytest.MonkeyPatch) -> Wise:
    """The benchmark with the first items alone."""
    items = benchmark.items()[:count]
    monkeypatch.setattr(benchmark, "items", lambda: items)
    return benchmark


def test_all_of_it_legacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = first(Wise(write_prompts(tmp_path / "data", "legacy"), WiseSettings(seed=2)), 3, monkeypatch)
    benchmark.out, painter = tmp_path / "out", Painter()
    good, fair = (f"I see it.\nConsistency: {n}\nRealism: 1\nAesthetic Quality: 0" for n in (2, 1))
    oracle = Oracle(good, "Score: 1", "no idea", fair)
    benchmark.judge_model = oracle
    rows = run(benchmark, painter)
    assert painter.prompts == ["prompt 1", "prompt 2", "prompt 3"] and painter.seeds == [2, 3, 4]
    assert [attempt for _, _, attempt in oracle.asked] == [0, 0, 1, 2, 0]
    assert "prompt 2" in oracle.asked[1][0] and "meaning 2" in oracle.asked[1][0] and len(oracle.asked[1][1]) == 1
    assert rows[0].verdict["criteria"] == {"consistency": 2, "realism": 1, "aesthetic quality": 0}
    assert [row.score for row in rows] == pytest.approx([0.8, 0.45, 0.45])
    assert (benchmark.out / "images" / "2.png").is_file()
    assert benchmark.scores([rows[0], rows[0], rows[1]]) == {"culture": pytest.approx((2 * 0.8 + 0.45) / 3)}


def test_all_of_it_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = WiseSettings(protocol="verified", threads=4)
    benchmark = first(Wise(write_prompts(tmp_path / "data", "verified"), settings), 2, monkeypatch)
    benchmark.out = tmp_path / "out"
    benchmark.judge_model = Oracle("**Score**: 0", "It is there.\nScore: 1")
    assert [row.score for row in run(benchmark, Painter())] == [0, 1] and benchmark.threads == 4


def test_the_overall_score_of_rows(tmp_path: Path) -> None:
    for name, time in (("legacy", 0.167), ("verified", 0.12)):
        benchmark = Wise(write_prompts(tmp_path / name, name), WiseSettings(protocol=name))  # type: ignore[arg-type]
        rows = [
            Row(item, "", {"score": benchmark.protocol.category(int(item.key)) == "time"}) for item in benchmark.items()
        ]
        assert benchmark.scores(rows)["overall"] == pytest.approx(time)


def test_three_tries_and_then_it_is_not_judged(tmp_path: Path) -> None:
    data, picture = write_prompts(tmp_path / "data", "verified"), Image.new("RGB", (8, 8))
    benchmark = Wise(data, WiseSettings(protocol="verified"))
    item = benchmark.items()[0]
    with pytest.raises(ValueError, match="name one with --set judge="):
        benchmark.judge(item, picture)
    oracle = Oracle("Consistency: 2\nRealism: 2\nAesthetic Quality: 2")
    benchmark.judge_model = oracle
    with pytest.raises(NotJudgedError, match="oracle gave no score in 3 tries"):
        benchmark.judge(item, picture)
    assert len(oracle.asked) == 3


def test_useless_replies_are_not_kept_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle("hm", "well", "\ud800", "Consistency: 2\nRealism: 2\nAesthetic Quality: 2 \udfff")
    monkeypatch.setattr(judges, "open_judge", lambda spec, *, cache: judges.Cached(oracle, cache, {}))
    data, out = write_prompts(tmp_path / "data", "legacy"), tmp_path / "out"
    request = EvalRequest("wise", out, data=data, limit=1, settings={"judge": "it"})
    report = evaluate(request, model=Painter())
    assert report["judged"] == 0 and "no score in 3 tries" in next(iter(report["not_judged"].values()))
    assert not list((out / "replies").rglob("*.json"))
    assert list(evaluate(request)["scores"].values()) == [pytest.approx(1)] and len(oracle.asked) == 4
    for verdicts in out.glob("verdicts-*"):
        verdicts.unlink()
    assert evaluate(request)["judged"] == 1 and len(oracle.asked) == 4, "what was of use is kept"
    assert "\\udfff" in (out / "report.html").read_text(encoding="utf-8")


def test_missing_or_mixed_data_is_named(tmp_path: Path) -> None:
    data = write_prompts(tmp_path / "data", "legacy")
    with pytest.raises(ValueError, match="_verified.json, which the verified protocol needs"):
        Wise(data, WiseSettings(protocol="verified")).items()
    wrongs: list[tuple[str, Any]] = [
        ("stands in the files twice", json.loads((data / FILES["legacy"][1][0]).read_text())),
        ("no file has prompt_id 3;", []),
    ]
    for said, content in wrongs:
        (data / FILES["legacy"][1][2]).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=said):
            Wise(data, WiseSettings()).items()
    (data / FILES["legacy"][1][2]).unlink()
    for folder, said in ((data, "has no natural_science.json"), (None, "needs a folder")):
        with pytest.raises(ValueError, match=said):
            Wise(folder, WiseSettings()).items()
    with pytest.raises(ValueError, match="setting protocol of wise: .*'legacy' or 'verified' .given: 'both'"):
        EvalRequest("wise", tmp_path, settings={"protocol": "both"}).open()


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "wise.json"
    for content, said in (("{", "is damaged"), ("{}", "is not a list"), ('[{"prompt_id": 1}]', "record 1")):
        file.write_text(content)
        with pytest.raises(ValueError, match=said):
            read_prompts(file)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_official_prompts_are_where_the_protocols_say() -> None:
    for protocol in ("legacy", "verified"):
        items = Wise(OFFICIAL / "wise", WiseSettings(protocol=protocol)).items()  # type: ignore[arg-type]
        assert [item.key for item in items] == [str(number) for number in range(1, 1001)]
    verified = read_prompts(OFFICIAL / "wise" / "data_verified" / "merge.json")
    assert [prompt.number for prompt in sorted(verified, key=lambda one: one.number)] == list(range(1, 1001))
    files = sorted((OFFICIAL / "wise" / "WISE_legacy" / "data").glob("*.json"))
    legacy = [prompt for file in files if "rewrite" not in file.name for prompt in read_prompts(file)]
    assert sorted(prompt.number for prompt in legacy) == list(range(1, 1001))


def test_full_width_colons_are_read() -> None:
    assert read_legacy("Consistency：2\nRealism：1\nAesthetic Quality：1") is not None
    assert read_verified("Score：1") == 1
