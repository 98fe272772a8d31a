"""Judges: an endpoint that is slow, fails, limits and talks nonsense; its budget, its cache; and local models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.dpg import Dpg, DpgSettings
from janusflow.evaluation.judges import endpoint as endpoint_judge
from janusflow.evaluation.judges import limited_http
from janusflow.evaluation.judges.open_judge import Cached, forgotten_if_useless, open_judge
from janusflow.evaluation.protocol import NotJudgedError

KEY = "sk-very-secret"
RED = Image.new("RGB", (4, 4), "red")


def reply(text: Any, tokens: int = 10) -> dict[str, Any]:
    """A chat completion."""
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}


class Server(ThreadingHTTPServer):
    """Gives the next answer of a list (status, content, headers), and the last one for ever; remembers what came."""

    daemon_threads = True
    answers: list[Any]
    asked: list[dict[str, Any]]
    released: threading.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if answer == "slow":
            server.released.wait(20)
            return
        status, content, headers = (*answer, {})[:3]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == "trickle":  # the head at once, and the content byte by byte until the test ends
            self.send_response(200)
            self.end_headers()
            while not server.released.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.answers, running.asked, running.released = [(200, reply("fine"))], [], threading.Event()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between tries, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(endpoint_judge.time, "sleep", found.append)
    return found


@pytest.fixture
def judge(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens the endpoint with a key in the environment."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def open_it(**options: Any) -> Any:
        return open_judge(f"openai:model-7@{server.url}", **{"tries": 3, **options})

    return open_it


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


def test_a_reply_in_parts_and_a_model_that_reasons(server: Server, judge: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "fi"}, {"type": "image"}, {"type": "text", "text": "ne"}]
    server.answers = [(200, reply(parts))]
    assert judge(reasons=True, max_tokens=7).reply("?") == "fine"
    asked = server.asked[0]
    assert asked["max_completion_tokens"] == 7 and "temperature" not in asked and "max_tokens" not in asked


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


# --- the cache ------------------------------------------------------------------------------------------------------


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
    assert said == ["fine"] * 40 and len(server.asked) <= 40
    assert len(list(tmp_path.glob("??/*.json"))) == 20 and not list(tmp_path.rglob("*.part"))
    with ThreadPoolExecutor(8) as pool:
        limited = judge(max_requests=5)
        ends = [pool.submit(limited.reply, f"{n}") for n in range(20)]
        assert sum(end.exception() is None for end in ends) == 5


def test_what_utf8_cannot_hold_reaches_an_endpoint_escaped(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    assert Cached(judge(), tmp_path, {}).reply("an answer \ud83d") == "fine"
    assert server.asked[0]["messages"][0]["content"] == "an answer \\ud83d"


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


# --- words ----------------------------------------------------------------------------------------------------------


def test_options_may_stand_in_the_word(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    asked = open_judge(f"openai:org/m@{server.url}?max_requests=1&timeout=2.5&cache={tmp_path}")
    assert isinstance(asked, Cached) and asked.folder == tmp_path and asked.name == f"org/m at {server.url}"
    assert (asked.judge.options.max_requests, asked.judge.options.timeout) == (1, 2.5)  # type: ignore[attr-defined]
    assert open_judge(server.url, model="m").name == open_judge(f"{server.url}?model=m").name == f"m at {server.url}"
    assert open_judge("openai:gpt-4o").name == "gpt-4o at https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "no judge is named"),
        ("http://localhost/v1", "does not name an endpoint; write openai:MODEL@https://HOST/v1"),
        ("openai:", "does not name an endpoint"),
        ("openai:m@ftp://host", "does not name an endpoint"),
        ("openai:m@https://user:word@host/v1", "with the key in an environment variable"),
        ("openai:m?colour=1", "has no option 'colour'; it has key_variable, "),
        ("openai:m?tries=many", "option tries: "),
        ("/no/such/folder", "is not a model that can be opened here"),
    ],
)
def test_other_words_are_refused_in_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        open_judge(spec)
    assert "\n" not in str(caught.value)


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
