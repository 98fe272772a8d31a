"""A far model: retried with patience, refused clearly, never trusted to answer well."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image

from janusflow.endpoint import Endpoint

GOOD = {"choices": [{"message": {"content": "a star"}}]}


class Server(HTTPServer):
    """Answers what it was told to, one after the other, and remembers what it was asked."""

    answers: list[tuple[int, Any]]
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append({"path": self.path, "key": self.headers.get("Authorization"), **json.loads(body)})
        status, answer = self.server.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.answers, running.asked = [], []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()


def endpoint(server: Server, **changes: Any) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "far", **{"patience": 0.01, "tries": 3, **changes})


def test_a_question_with_a_picture(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server.answers = [(200, GOOD)]
    assert endpoint(server, key_variable="MY_KEY").ask("what?", [Image.new("RGB", (4, 4))]) == "a star"
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["key"] == "Bearer secret"
    assert asked["model"] == "far"
    picture, text = asked["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "what?"}


def test_failures_that_pass_are_tried_again(server: Server) -> None:
    server.answers = [(429, {}), (503, {}), (200, GOOD)]
    assert endpoint(server).ask("what?") == "a star"
    server.answers = [(200, b"not json"), (200, {"choices": []}), (200, GOOD)]
    assert endpoint(server).ask("what?") == "a star"
    assert len(server.asked) == 6


def test_refusals_and_endless_failures_are_one_sentence(server: Server) -> None:
    server.answers = [(401, {})]
    with pytest.raises(ValueError, match="refused the request: status 401"):
        endpoint(server).ask("what?")
    server.answers = [(500, {})] * 3
    with pytest.raises(ValueError, match="gave no answer in 3 tries; the last: status 500"):
        endpoint(server).ask("what?")
    server.answers = [(200, {"choices": [{"message": {"content": None}}]})] * 3
    with pytest.raises(ValueError, match="content is NoneType"):
        endpoint(server).ask("what?")
    with pytest.raises(ValueError, match="gave no answer"):
        Endpoint("http://127.0.0.1:9", "far", tries=1).ask("what?")
    with pytest.raises(ValueError, match="is no http address"):
        Endpoint("file:///etc", "far", tries=1).ask("what?")
