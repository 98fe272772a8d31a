"""A judge behind an endpoint that is slow, fails, limits and talks nonsense; its budget and its key."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.judges import endpoint as endpoint_judge
from janusflow.evaluation.judges import limited_http
from janusflow.evaluation.judges.open_judge import Cached, open_judge
from janusflow.evaluation.protocol import NotJudgedError
from tests.evaluation.judges.conftest import KEY
from tests.evaluation.judges.server import Server, reply

RED = Image.new("RGB", (4, 4), "red")


def test_a_question_with_pictures_reaches_the_endpoint(server: Server, judge: Callable[..., Any]) -> None:
    asked = judge(max_tokens=99)
    assert asked.reply("what?", [RED, RED], system="be brief", temperature=0.5) == "fine"
    (sent,) = server.asked
    assert (sent["path"], sent["model"], sent["key"]) == ("/v1/chat/completions", "model-7", f"Bearer {KEY}")
    assert (sent["temperature"], sent["max_tokens"]) == (0.5, 99)
    system, user = sent["messages"]
    assert system == {"role": "system", "content": "be brief"}
    first, second, text = user["content"]
    assert first == second and first["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert text == {"type": "text", "text": "what?"}
    assert asked.reply("words alone") == "fine"
    assert server.asked[1]["messages"] == [{"role": "user", "content": "words alone"}]


def test_failures_that_pass_are_tried_again_with_growing_waits(
    server: Server, judge: Callable[..., Any], waits: list[float]
) -> None:
    server.answers = [(500, {}), (503, b"<html>"), (502, {}), (200, reply("fine"))]
    assert judge(tries=4, patience=8).reply("?") == "fine"
    assert [low <= wait <= high for wait, low, high in zip(waits, (6, 12, 24), (8, 16, 32), strict=True)] == [True] * 3
    server.answers = [(500, {})]
    with pytest.raises(NotJudgedError, match="gave no reply in 3 tries; the last: status 500"):
        judge().reply("?")
    assert len(server.asked) == 4 + 3


def test_a_slow_reply_is_given_up_and_asked_for_again(server: Server, judge: Callable[..., Any]) -> None:
    server.answers = ["slow", (200, reply("fine"))]
    assert judge(timeout=1.0, tries=9).reply("?") == "fine"
    assert len(server.asked) > 1
    server.answers = ["slow"]
    with pytest.raises(NotJudgedError, match="the last: no answer in time"):
        judge(timeout=0.1, tries=1).reply("?")
    with pytest.raises(NotJudgedError, match="the last: no connection"):
        open_judge("openai:m@http://127.0.0.1:9/v1", tries=1).reply("?")


def test_what_a_limiting_endpoint_asks_to_wait_is_waited(
    server: Server, judge: Callable[..., Any], waits: list[float]
) -> None:
    date = formatdate(time.time() + 2000, usegmt=True)
    server.answers = [
        (429, {}, {"Retry-After": "17"}),
        (429, {}, {"Retry-After": date}),
        (429, {}, {"Retry-After": "999999"}),
        (429, {}, {"Retry-After": "soon"}),
        (200, reply("fine")),
    ]
    assert judge(tries=5, longest_wait=9000, patience=0.001).reply("?") == "fine"
    assert waits[0] == 17 and 1000 < waits[1] <= 2000 and waits[2] == 9000 and waits[3] < 1


@pytest.mark.parametrize(
    "broken",
    [b"{not json", b"", b"[]", b"null", {"choices": []}, {"choices": None}, reply(None), reply(""), reply(" \n")],
    ids=str,
)
def test_broken_and_empty_replies_are_tried_again(server: Server, judge: Callable[..., Any], broken: Any) -> None:
    server.answers = [(200, broken), (200, broken, {"Content-Type": "text/plain"}), (200, reply("fine"))]
    assert judge().reply("?") == "fine"
    server.answers = [(200, broken)]
    with pytest.raises(NotJudgedError, match="the last: (the reply is not a chat completion|an empty reply)"):
        judge().reply("?")


def test_a_wrong_key_is_one_sentence_and_no_second_request(server: Server, judge: Callable[..., Any]) -> None:
    server.answers = [(401, {"error": {"message": f"Incorrect key {KEY}"}})]
    asked = judge()
    for _ in range(2):
        with pytest.raises(NotJudgedError) as caught:
            asked.reply("?")
        assert str(caught.value).endswith("with status 401: the key in OPENAI_API_KEY is not accepted")
    assert len(server.asked) == 1


def test_a_refused_question_is_not_repeated_but_the_next_is_asked(server: Server, judge: Callable[..., Any]) -> None:
    said = {"error": {"message": f"the picture\nis too large for {KEY}"}}
    server.answers = [(400, said), (200, reply("fine"))]
    asked = judge()
    with pytest.raises(NotJudgedError, match=r"status 400: .*the picture is too large for \*\*\*") as caught:
        asked.reply("?")
    assert KEY not in str(caught.value) and caught.value.__cause__ is None
    assert asked.reply("?") == "fine" and len(server.asked) == 2
    server.answers = [(429, {"error": {"message": "no money", "code": "insufficient_quota"}})]
    with pytest.raises(NotJudgedError, match="status 429: .*no money"):
        asked.reply("?")
    assert len(server.asked) == 3


def test_the_key_may_stand_in_another_variable(
    server: Server, judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-mine")
    assert judge(key_variable="MY_KEY").reply("?") == "fine"
    assert server.asked[0]["key"] == "Bearer sk-mine"
    server.answers = [(401, {})]
    with pytest.raises(NotJudgedError, match="the key in NO_SUCH_KEY is missing"):
        judge(key_variable="NO_SUCH_KEY").reply("?")


def test_a_reply_in_parts_and_a_model_that_reasons(server: Server, judge: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "fi"}, {"type": "image"}, {"type": "text", "text": "ne"}]
    server.answers = [(200, reply(parts))]
    assert judge(reasons=True, max_tokens=7).reply("?") == "fine"
    asked = server.asked[0]
    assert asked["max_completion_tokens"] == 7 and "temperature" not in asked and "max_tokens" not in asked


def test_a_reply_that_trickles_in_or_is_too_large_is_given_up(
    server: Server, judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [("trickle", b"")]
    with pytest.raises(NotJudgedError, match="the last: no answer in time"):
        judge(timeout=0.3, tries=1).reply("?")
    server.answers = [(200, reply("fine" * 10_000))]
    limited = partial(limited_http.limited_client, largest=1000)
    monkeypatch.setattr(endpoint_judge, "limited_client", limited)
    with pytest.raises(NotJudgedError, match="the last: no connection"):
        judge(tries=1).reply("?")


def test_a_redirect_is_refused_and_not_followed(server: Server, judge: Callable[..., Any]) -> None:
    server.answers = [(307, {}, {"Location": f"{server.url}/elsewhere"}), (200, reply("fine"))]
    asked = judge(max_requests=9)
    for _ in range(2):
        with pytest.raises(NotJudgedError, match=r"redirects to '\S+/elsewhere', which is not followed"):
            asked.reply("?")
    assert len(server.asked) == 1


def test_what_utf8_cannot_hold_reaches_an_endpoint_escaped(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    assert Cached(judge(), tmp_path, {}).reply("an answer \ud83d") == "fine"
    assert server.asked[0]["messages"][0]["content"] == "an answer \\ud83d"


def test_a_stopped_judge_tries_no_more(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answers = [(500, b"")]
    judge = open_judge(f"openai:model-7@{server.url}", tries=3, patience=60.0)
    judge.stop()
    with pytest.raises(NotJudgedError, match="the run was stopped"):
        judge.reply("is it right?")
    assert len(server.asked) == 1
