"""A judge's budget ends the asking, is shared, and is neither lowered nor restarted by odd replies or damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.protocol import NotJudgedError
from tests.evaluation.judges.server import Server, reply


def test_a_budget_ends_the_asking(server: Server, judge: Callable[..., Any]) -> None:
    server.answers = [(500, {}), (200, reply("fine"))]
    asked = judge(max_requests=3)
    assert asked.reply("a") == asked.reply("b") == "fine"  # three requests with the failed one
    for _ in range(2):
        with pytest.raises(NotJudgedError, match=r"^the budget of 3 requests to model-7 at \S+ is used up$"):
            asked.reply("c")
    assert len(server.asked) == 3
    server.answers = [(200, reply("fine", tokens=60))]
    frugal = judge(max_total_tokens=100)
    assert frugal.reply("a") == frugal.reply("b") == "fine"
    with pytest.raises(NotJudgedError, match="the budget of 100 tokens"):
        frugal.reply("c")


def test_processes_share_a_budget_with_the_cache(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    one, other = (judge(cache=tmp_path, max_requests=3, max_total_tokens=1000) for _ in range(2))
    assert one.reply("a") == other.reply("b") == one.reply("c") == "fine"
    for asked in (one, other, judge(cache=tmp_path, max_requests=3)):
        with pytest.raises(NotJudgedError, match="the budget of 3 requests"):
            asked.reply("d")
    assert len(server.asked) == 3
    assert judge(cache=tmp_path, max_requests=4).reply("d") == "fine", "a higher one goes on"
    with pytest.raises(NotJudgedError, match="the budget of 40 tokens"):
        judge(cache=tmp_path, max_total_tokens=40).reply("e")
    assert judge(cache=tmp_path / "elsewhere", max_requests=1).reply("e") == "fine"


ODD = [
    {"choices": [{"message": {"content": [{"type": "text"}]}}]},
    {"choices": [{"message": {"content": [{"type": "text", "text": 7}]}}]},
    {"choices": [{"message": {"content": [7]}}]},
    {"choices": [{"message": {"content": {"a": 1}}}]},
    {"choices": [{"message": 7}]},
    {"choices": {"0": 1}},
    b"[" * 5000 + b"]" * 5000,
    b'{"choices": [{"message": {"content": "fine"}}], "usage": {"total_tokens": NaN}}',
    *({**reply("fine"), "usage": {"total_tokens": odd}} for odd in (-50, 10**30, "many", 1.5, True, [1])),
    {**reply("fine"), "usage": "text"},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:40])
def test_an_odd_reply_is_unusable_and_lowers_no_account(
    server: Server, judge: Callable[..., Any], tmp_path: Path, odd: Any
) -> None:
    server.answers = [(200, odd), (200, reply("fine"))]
    asked = judge(cache=tmp_path, max_requests=9, max_total_tokens=1000)
    assert asked.reply("?") == "fine"
    (account,) = (tmp_path / "spent").glob("*.json")
    assert json.loads(account.read_text()) == {"requests": 2, "tokens": 10}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "7", "{}", '{"requests": 3}', '{"requests": NaN, "tokens": 1}'),
        *('{"requests": -3, "tokens": 1}', '{"requests": "3", "tokens": 1}', "[" * 5000),
    ],
)
def test_a_damaged_account_is_refused_and_restarts_no_budget(
    server: Server, judge: Callable[..., Any], tmp_path: Path, content: str
) -> None:
    asked = judge(cache=tmp_path, max_requests=5)
    assert asked.reply("a") == "fine"
    (account,) = (tmp_path / "spent").glob("*.json")
    account.write_text(content)
    with pytest.raises(ValueError, match=r"\.json is damaged: .* delete it to restart the budget"):
        judge(cache=tmp_path, max_requests=5)
    with pytest.raises(NotJudgedError, match=r"\.json is damaged: "):
        asked.reply("b")
    assert len(server.asked) == 1 and account.read_text() == content
