"""Replies of a judge are kept, and contain no key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.dpg import Dpg, DpgSettings
from janusflow.evaluation.judges.open_judge import Cached, forgotten_if_useless, open_judge
from janusflow.evaluation.protocol import NotJudgedError
from tests.evaluation.judges.conftest import KEY
from tests.evaluation.judges.server import Server, reply

RED = Image.new("RGB", (4, 4), "red")


def test_a_reply_that_repeats_the_key_is_kept_without_it(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    server.answers = [(200, reply(f"your key is {KEY}"))]
    assert judge(cache=tmp_path).reply("?") == "your key is ***"
    (file,) = tmp_path.rglob("*.json")
    assert KEY not in file.read_text()
    server.answers = [(400, {"error": {"message": "x" * 195 + KEY}})]
    with pytest.raises(NotJudgedError) as caught:
        judge().reply("?")
    assert KEY[:5] not in str(caught.value)


def test_a_rerun_asks_nothing(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    assert judge(cache=tmp_path).reply("?", [RED]) == "fine"
    server.answers = [(500, {})]
    for options in ({}, {"max_requests": 0}):
        assert judge(cache=tmp_path, **options).reply("?", [RED.copy()]) == "fine"
    assert len(server.asked) == 1


def test_whatever_shapes_a_reply_makes_another_question(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    asked = judge(cache=tmp_path)
    first: dict[str, Any] = {"prompt": "?", "images": [RED]}
    blue = Image.new("RGB", (4, 4), "blue")
    others: list[dict[str, Any]] = [
        {"prompt": "!"},
        {"images": []},
        {"images": [blue]},
        {"images": [RED, RED]},
        {"images": [RED.resize((2, 8))]},
        {"system": "be brief"},
        {"temperature": 0.5},
        {"attempt": 1},
    ]
    for changes in [{}, *others]:
        asked.reply(**{**first, **changes})
    judge(cache=tmp_path, max_tokens=3).reply(**first)
    open_judge(f"openai:model-8@{server.url}", cache=tmp_path).reply(**first)
    open_judge(f"openai:model-7@{server.url}/", cache=tmp_path).reply(**first)  # the same address
    assert len(server.asked) == len(list(tmp_path.rglob("*.json"))) == 1 + len(others) + 2


def test_failures_are_not_kept_and_damaged_files_are_asked_anew(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    server.answers = [(500, {})]
    with pytest.raises(NotJudgedError):
        judge(cache=tmp_path).reply("?")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    server.answers = [(200, reply("fine"))]
    for content in ("", "{", "[]", '{"reply": 7}', "\0"):
        assert judge(cache=tmp_path).reply("?") == "fine"
        (file,) = tmp_path.rglob("*.json")
        file.write_text(content)
    assert judge(cache=tmp_path).reply("?") == "fine" and json.loads(file.read_text())["reply"] == "fine"


def test_the_key_is_never_written(
    server: Server, judge: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    asked = judge(cache=tmp_path)
    asked.reply("?", [RED], system="be brief")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 1 and KEY.encode() not in files[0].read_bytes()
    assert KEY not in caplog.text and KEY not in asked.name and KEY not in repr(asked.judge.options)


def test_threads_share_a_judge(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    asked = judge(cache=tmp_path, max_requests=40)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(asked.reply, [f"question {n % 20}" for n in range(40)]))
    assert said == ["fine"] * 40 and len(server.asked) < 40, "most second questions come from the cache"
    assert len(list(tmp_path.glob("??/*.json"))) == 20 and not list(tmp_path.rglob("*.part"))
    with ThreadPoolExecutor(8) as pool:
        limited = judge(max_requests=5)
        ends = [pool.submit(limited.reply, f"{n}") for n in range(20)]
        assert sum(end.exception() is None for end in ends) == 5


class Failing:
    """A judge that says "well", and nothing to one question."""

    name = "failing"

    def reply(self, prompt: str, *args: Any, **options: Any) -> str:
        if prompt == "cannot":
            raise NotJudgedError("out of money")
        return "well"


def test_replies_leave_the_cache_with_the_item_that_they_were_of_no_use_for(tmp_path: Path) -> None:
    judge = Cached(Failing(), tmp_path, {})

    def judged(prompts: list[str]) -> None:
        with forgotten_if_useless():
            for prompt in prompts:
                judge.reply(prompt)
            if "useless" in prompts:
                raise NotJudgedError("no score")

    def kept() -> set[str]:
        return {json.loads(file.read_text())["prompt"] for file in tmp_path.rglob("*.json")}

    judged(["a"])
    for prompts in (["useless", "b"], ["c", "cannot"]):
        with pytest.raises(NotJudgedError):
            judged(prompts)
    assert kept() == {"a", "c"}, "what was paid for stays where the judge itself failed"

    together = threading.Barrier(8)

    def at_once(number: int) -> None:
        together.wait()
        for _ in range(20):
            try:
                judged([f"good {number}"] if number % 2 else ["useless", f"bad {number}"])
            except NotJudgedError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(at_once, range(8)))
    assert kept() == {"a", "c", *(f"good {number}" for number in range(1, 8, 2))}


def test_a_benchmark_reads_no_thoughts_and_the_cache_keeps_the_whole_reply(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("openai")
    server.answers = [(200, reply("<think>no</think>yes"))]
    benchmark = Dpg(tmp_path, DpgSettings(judge=f"openai:model-7@{server.url}"))
    benchmark.out = tmp_path / "run"
    for _ in range(2):
        assert benchmark.judge_model.reply("?") == "yes" and benchmark.judge_model.name.startswith("model-7 at ")
    (kept,) = (tmp_path / "run" / "replies").rglob("*.json")
    assert json.loads(kept.read_text())["reply"] == "<think>no</think>yes" and len(server.asked) == 1
