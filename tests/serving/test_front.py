"""The front of several replicas, with replicas that are functions of this test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from janusflow.serving.errors import ApiError

pytest.importorskip("ray", reason="Ray is not installed here; `pip install 'janusflow[ray]'`")
from ray.exceptions import RayActorError

from janusflow.serving.front import ATTEMPTS, Front, adapter_of

START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"part", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}


class Handle:
    """What Ray gives for a deployment: each call is answered by the next of some replicas."""

    def __init__(self, *replicas: Callable[[], AsyncIterator[Any]]) -> None:
        self.replicas, self.calls, self.chosen = list(replicas), list[tuple[Any, bytes]](), ""
        self.cancelled = False
        self.answer = self

    def options(self, *, stream: bool, multiplexed_model_id: str) -> Handle:
        assert stream
        self.chosen = multiplexed_model_id
        return self

    def remote(self, scope: Any, body: bytes) -> Handle:
        self.calls.append((scope, body))
        self.messages = self.replicas.pop(0)()
        return self

    async def __anext__(self) -> Any:
        return await anext(self.messages)

    def cancel(self) -> None:
        self.cancelled = True


async def whole() -> AsyncIterator[Any]:
    for message in (START, PART, END):
        yield message
    await asyncio.sleep(0.1)  # Ray reports the end later


async def dead() -> AsyncIterator[Any]:
    yield START  # a status is no promise yet
    raise RayActorError


async def dying() -> AsyncIterator[Any]:
    yield START
    yield PART
    raise RayActorError


async def silent() -> AsyncIterator[Any]:
    await asyncio.sleep(60)
    yield START


def asked(handle: Handle, *, leaves: bool = False, path: str = "/v1/models") -> list[Any]:
    """What the front sends for a request."""
    sent, arriving = list[Any](), [{"type": "http.request", "body": b'{"model": "tiny:mine"}'}]

    async def receive() -> Any:
        if arriving:
            return arriving.pop()
        while not leaves and not (sent and sent[-1] == END):  # as uvicorn does
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "state": {"request_id": "req_1"}}
    scope["extensions"] = object()  # cannot be sent to another process
    asyncio.run(Front(handle)(scope, receive, send))
    return sent


def test_an_answer_is_passed_on_and_its_adapter_chooses_the_replica() -> None:
    handle = Handle(whole)
    assert asked(handle) == [START, PART, END]
    assert handle.chosen == "tiny:mine"
    assert "extensions" not in handle.calls[0][0]


def test_a_request_whose_replica_dies_is_repeated_as_it_was() -> None:
    handle = Handle(dead, dead, whole)
    assert asked(handle) == [START, PART, END]
    assert len(handle.calls) == 3 and all(call == handle.calls[0] for call in handle.calls)
    assert handle.calls[0][0]["state"] == {"request_id": "req_1"}


def test_a_stream_that_has_begun_ends_with_an_error_and_is_not_repeated() -> None:
    handle = Handle(dying, whole)
    *begun, last = asked(handle)
    assert begun == [START, PART] and len(handle.calls) == 1
    assert last["body"].startswith(b"event: error\ndata: {") and not last.get("more_body")


def test_replicas_that_all_die_are_an_error() -> None:
    handle = Handle(*[dead] * 9)
    with pytest.raises(ApiError) as failed:
        asked(handle)
    assert failed.value.status == 503 and len(handle.calls) == ATTEMPTS


def test_a_client_that_leaves_cancels_the_work_of_the_replica() -> None:
    handle = Handle(silent)
    with pytest.raises(ApiError, match="disconnected"):
        asked(handle, leaves=True)
    assert handle.cancelled


def test_the_process_is_live_without_a_replica_and_refuses_requests_while_it_drains() -> None:
    assert asked(Handle(), path="/health/live")[0]["status"] == 200
    front = Front(Handle(whole))
    front.drain()
    with pytest.raises(ApiError) as refused:
        asyncio.run(front({"type": "http", "path": "/v1/models"}, None, None))  # type: ignore[arg-type]
    assert refused.value.status == 503 and front.wait_until_idle(0)


def test_the_model_that_a_body_names_chooses_the_replica() -> None:
    assert adapter_of(b'{"model": "tiny:mine"}') == "tiny:mine"
    sent = {"prompt": "a", "model": "tiny:mine"}
    form = httpx2.Request("POST", "http://x", data=sent, files={"image": b"..."}).read()
    assert adapter_of(form) == "tiny:mine" and adapter_of(form.replace(b"tiny:mine", b"tiny")) == ""
    for body in (b'{"model": "tiny"}', b'{"model": 3}', b"{}", b"[", b"[]", b"\xff", b"[" * 100_000):
        assert adapter_of(body) == ""
