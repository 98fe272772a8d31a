"""What every request meets: keys, limits, errors, and the end of a client or of the server."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from openai import AuthenticationError, OpenAI, RateLimitError

from janusflow import JanusFlow
from janusflow.serving.api import images
from janusflow.serving.api.server import Server
from janusflow.serving.api.status import described
from janusflow.serving.errors import ApiError
from janusflow.serving.runner import PipelineRunner
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.settings import Limits
from tests.serving.conftest import KEY, LIMITS, Served, serving, until

LONG: dict[str, Any] = {"prompt": "a red circle", "num_inference_steps": 60}


def test_the_models_are_listed_and_described(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "janusflow"


def test_adapters_are_not_read_to_list_them(tiny_model: JanusFlow) -> None:
    class OnDisk(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            assert name == "tiny", "an adapter was read"
            return super().__getitem__(name)

    server = Server(OnDisk({"tiny": tiny_model, "tiny:mine": None}), None, LIMITS, None)  # type: ignore[arg-type]
    found = [described(server, name) for name in server.models]
    assert [one["id"] for one in found] == ["tiny", "tiny:mine"] and found[0]["settings"] == found[1]["settings"]
    server.check_model("tiny:mine")
    with pytest.raises(ApiError, match="there are tiny, tiny:mine"):
        server.check_model("tiny:other")


def test_without_the_key_only_health_is_answered(served: Served) -> None:
    for key in ("x", KEY[:-1], KEY.upper()):
        with served.http(key) as http:
            for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
                assert http.get(path).status_code == 401
            assert http.get("/health/live").status_code == http.get("/health/ready").status_code == 200
    with pytest.raises(AuthenticationError, match="API key"):
        served.client("wrong").models.list()


def test_the_log_has_the_requests_id_and_neither_key_nor_content(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "janusflow.serving"), served.http() as http:
        found = http.post("/v1/images/generations", json={"prompt": "secret words", "nonsense": 1})
        http.get("/nowhere%0aforged%20line")
        until(lambda: "/nowhere" in caplog.text)
    assert found.headers["x-request-id"] in caplog.text
    assert "\nforged" not in caplog.text
    assert "/v1/images/generations 400" in caplog.text
    assert KEY not in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"content": b"{"}, 400, "invalid_json"),
        ({"content": b"[" * 100_000}, 400, None),
        ({"json": []}, 400, "invalid_value"),
        ({"json": {}}, 400, "missing_required_parameter"),
        ({"content": b"x" * 300_001}, 413, "body_too_large"),
    ],
)
def test_bodies_that_are_none_are_refused(served: Served, request_of: Any, status: int, code: str | None) -> None:
    with served.http() as http:
        found = http.post("/v1/chat/completions", headers={"Content-Type": "application/json"}, **request_of)
    assert (found.status_code, found.json()["error"]["code"]) == (status, code)


def test_unknown_paths_and_methods_have_the_shape_of_errors(served: Served) -> None:
    with served.http() as http:
        assert http.get("/v1/embeddings").json()["error"]["type"] == "not_found_error"
        found = http.get("/v1/chat/completions")
        assert (found.status_code, found.headers["Allow"]) == (405, "POST")


def test_the_documentation_has_examples_and_every_path(served: Served) -> None:
    with served.http() as http:
        described = http.get("/openapi.json").json()
    paths = {"/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/models", "/metrics"}
    assert paths <= set(described["paths"])
    for body in ("ChatBody", "GenerationBody"):
        assert described["components"]["schemas"][body]["examples"]


def test_metrics_count_tokens_and_pictures(served: Served, client: OpenAI) -> None:
    client.images.generate(prompt="a red circle", extra_body={"num_inference_steps": 1})
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    with served.http() as http:
        text = http.get("/metrics").text
    found = {line.split(" ")[0]: float(line.split(" ")[-1]) for line in text.splitlines() if line[0] != "#"}
    assert found['janusflow_finished_total{kind="picture"}'] >= 1
    assert found["janusflow_tokens_total"] >= 1
    assert found['janusflow_wait_seconds_count{kind="text"}'] >= 1
    assert found["process_resident_memory_bytes"] > 1e6


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_job(served: Served, stream: bool) -> None:
    cancelled = served.scheduler.metrics.cancelled.labels("picture")
    before = cancelled._value.get()
    body = json.dumps({**LONG, "num_inference_steps": 60, "stream": stream}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: served.scheduler.unfinished == 1)
    until(lambda: cancelled._value.get() == before + 1)
    assert served.scheduler.unfinished == 0


def test_a_late_request_gets_408(served: Served) -> None:
    with served.http() as http:
        found = http.post("/v1/images/generations", json={**LONG, "timeout": 0.01})
    assert (found.status_code, found.json()["error"]["code"]) == (408, "timeout")


def test_the_timeout_of_pictures_counts_from_their_arrival(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking the request takes longer than its timeout; one step of a picture alone would not."""
    checked = images._settings
    monkeypatch.setattr(images, "_settings", lambda *given: (time.sleep(1.1), checked(*given))[1])
    with served.http() as http:
        found = http.post("/v1/images/generations", json={"prompt": "a star", "num_inference_steps": 1, "timeout": 1})
    assert (found.status_code, found.json()["error"]["code"]) == (408, "timeout")


def test_a_full_queue_answers_429_and_a_draining_server_503_while_it_finishes(tiny_model: JanusFlow) -> None:
    limits = Limits(**{**vars(LIMITS), "max_n": 2})
    with serving(tiny_model, QueueSettings(max_queue=2, max_pictures=1), limits) as served:
        answers: list[httpx2.Response] = []

        def ask() -> None:
            with served.http() as http:
                answers.append(http.post("/v1/images/generations", json={**LONG, "num_inference_steps": 5, "n": 2}))

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: served.scheduler.unfinished == 2)
        with pytest.raises(RateLimitError) as refused:
            served.client().images.generate(prompt="a star", n=2)
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        with served.http() as http:
            assert http.get("/health/ready").status_code == 200
            served.scheduler.drain()
            found = http.post("/v1/images/generations", json=LONG)
            assert found.status_code == 503 and "Retry-After" in found.headers
            assert http.get("/health/ready").status_code == 503
        thread.join()
        assert answers[0].status_code == 200 and len(answers[0].json()["data"]) == 2


def test_a_key_that_asks_too_often_gets_429(tiny_model: JanusFlow) -> None:
    limits = Limits(**{**vars(LIMITS), "requests_per_minute": 2})
    with serving(tiny_model, QueueSettings(), limits) as served, served.http() as http:
        assert [http.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        assert 1 <= int(http.get("/v1/models").headers["Retry-After"]) <= 30
        assert http.get("/health/live").status_code == 200


def test_a_body_that_does_not_arrive_gets_408_and_the_connection_is_closed(tiny_model: JanusFlow) -> None:
    limits = Limits(**{**vars(LIMITS), "body_seconds": 0.1})
    with serving(tiny_model, QueueSettings(), limits) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            answer = b"".join(iter(lambda: connection.recv(10_000), b""))  # until the server closes the connection
            assert b" 408 " in answer and b"body_timeout" in answer


@pytest.mark.parametrize("sent", [b"", b"GET /v1/models HTTP/1.1\r\nHost:"])
def test_a_connection_without_a_whole_header_is_closed(tiny_model: JanusFlow, sent: bytes) -> None:
    with serving(tiny_model, QueueSettings(), Limits(**{**vars(LIMITS), "head_seconds": 0.1})) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"GET /health/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
            if sent:
                connection.sendall(head.encode())  # also after a request that was whole
                assert b" 200 " in connection.recv(10_000)
                connection.sendall(sent)
            with suppress(ConnectionResetError):
                while connection.recv(10_000):
                    pass


def test_a_client_that_takes_nothing_of_its_answer_is_dropped(tiny_model: JanusFlow) -> None:
    limits = Limits(**{**vars(LIMITS), "write_seconds": 0.2, "max_body": 2_000_000})
    with serving(tiny_model, QueueSettings(), limits) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(10)
            connection.connect((host, int(port)))
            ask = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"

            def refused() -> bool:
                try:
                    connection.sendall(ask.encode())
                except OSError:
                    return True
                return False

            until(refused, 10)


def test_an_unexpected_error_is_in_the_log_under_the_id_that_the_client_gets(
    tiny_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory, or so")

    with serving(tiny_model, QueueSettings()) as served, served.http() as http:
        monkeypatch.setattr(PipelineRunner, "start", broken)
        found = http.post("/v1/images/generations", json={"prompt": "a star"})
    assert (found.status_code, found.json()["error"]["code"]) == (500, "internal_error")
    (record,) = [one for one in caplog.records if one.getMessage() == f"{found.headers['x-request-id']} failed"]
    assert record.exc_info is not None and "out of memory, or so" in str(record.exc_info[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_whose_model_has_failed_ends(
    tiny_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the scheduler has an error")

    monkeypatch.setattr(Scheduler, "tick", broken)
    with serving(tiny_model, QueueSettings()) as served:
        until(lambda: any("stopping: the model's thread has ended" in one.message for one in caplog.records))
        assert not served.scheduler.alive


def test_limits_hold_for_settings_that_the_client_does_not_send(tiny_model: JanusFlow) -> None:
    limits = Limits(**{**vars(LIMITS), "max_steps": 20, "max_output_pixels": 64 * 64 - 1})
    with serving(tiny_model, QueueSettings(), limits) as served, served.http() as http:
        found = http.post("/v1/images/generations", json={"prompt": "a star"}).json()["error"]
        assert found["message"] == "num_inference_steps is 30; this server allows at most 20"
        found = http.post("/v1/images/generations", json={"prompt": "a star", "num_inference_steps": 1}).json()["error"]
        assert found["message"] == "size is 64x64; this server allows at most 4095 pixels"
