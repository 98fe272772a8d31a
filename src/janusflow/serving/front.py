"""HTTP front of `janusflow serve --ray`: sends each request to a replica, and again if that replica dies.

The front reads the body, checks key and limits (`gate.py`), and forwards the request unchanged. A replica runs the same
application as a single process (`replica.py`). If a request names no seed, the seed follows from the request's id, so
that a second attempt gives the same result as the first would have given.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from ray.exceptions import RayActorError
from starlette.types import Message, Receive, Scope, Send

from janusflow.serving.errors import ApiError, as_api_error
from janusflow.serving.metrics import Metrics
from janusflow.serving.scheduler import DrainingError

LOG = logging.getLogger("janusflow.serving")
ATTEMPTS = 4  # per request; Ray chooses the replica of each
PASSED_ON = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "state")
LIVE = "/health/live"  # answered by this process itself
MODEL = re.compile(  # the `model` field of a form
    rb'content-disposition: form-data; name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,200})\r\n', re.IGNORECASE
)


class Front:
    """ASGI application whose requests are answered by replicas.

    Args:
        handle: handle of the `Replica` deployment.
        metrics: counts the requests that are refused here.

    Attributes:
        alive: always true: Ray starts replicas again.
        unfinished: number of accepted requests that are not answered yet.
        draining: whether new requests are refused.
    """

    def __init__(self, handle: Any, metrics: Metrics | None = None) -> None:
        self.handle, self.metrics = handle, metrics or Metrics()
        self.alive, self.unfinished, self.draining = True, 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] != "http":
            return
        if scope["path"] == LIVE:
            await _respond(send, b'{"status":"live"}')
            return
        if self.draining:
            self.metrics.rejected.labels("draining").inc()
            raise as_api_error(DrainingError("the server is shutting down; send the request to another one"))
        self.unfinished += 1
        try:
            await self._answer(scope, (await receive()).get("body", b""), receive, send)
        finally:
            self.unfinished -= 1

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = {name: scope[name] for name in PASSED_ON if name in scope}
        request["state"] = {"request_id": scope["state"]["request_id"]}
        handle = self.handle.options(stream=True, multiplexed_model_id=adapter_of(body))
        for attempt in range(ATTEMPTS):
            begun = False
            try:
                async for message in self._messages(handle.answer.remote(request, body), receive):
                    begun = True
                    await send(message)
                return
            except RayActorError:
                LOG.warning("%s: its replica died, attempt %d", scope["state"]["request_id"], attempt + 1)
            if begun:
                await _end_with_error(send)
                return
        raise ApiError(503, "the replicas that worked on the request died; try again", code="replica_died")

    async def _messages(self, answers: Any, receive: Receive) -> AsyncIterator[Message]:
        """Yield the messages of an answer; the replica stops if the client disconnects.

        The first message contains only the status. It is held back until the second arrives; until then, nothing has
        been promised.
        """
        gone = asyncio.create_task(_disconnect(receive))
        held: list[Message] = []
        try:
            while True:
                following = asyncio.ensure_future(anext(answers))
                await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    answers.cancel()
                    raise ApiError(499, "the client disconnected", code="cancelled")
                try:
                    held.append(following.result())
                except StopAsyncIteration:
                    return
                if len(held) > 1 or held[0]["type"] != "http.response.start":
                    for message in held:
                        yield message
                    if held[-1]["type"] == "http.response.body" and not held[-1].get("more_body"):
                        return  # from here on `receive` reports the end as a disconnect
                    held.clear()
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    # --- as a scheduler, for `server.py` ------------------------------------------------------------------------------

    def start(self) -> None:
        """Do nothing: `serve.run` starts the replicas."""

    def drain(self) -> None:
        """Accept no new requests from now on."""
        self.draining = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait up to `seconds` until all accepted requests are answered; return whether they are."""
        end = time.monotonic() + seconds
        while self.unfinished and time.monotonic() < end:
            time.sleep(0.05)
        return not self.unfinished

    def close(self) -> None:
        """Stop the replicas."""
        from ray import serve

        self.draining = True
        serve.shutdown()


def adapter_of(body: bytes) -> str:
    """Return the model with adapters that a JSON or multipart/form-data body names; empty if it names none."""
    try:
        name = field[1].decode() if (field := MODEL.search(body)) else json.loads(body)["model"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return name if isinstance(name, str) and ":" in name and len(name) < 200 else ""


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def _end_with_error(send: Send) -> None:
    """End a stream that has begun."""
    error = ApiError(503, "the replica that worked on the request died", code="replica_died")
    data = f"event: error\ndata: {json.dumps(error.body())}\n\n"
    await send({"type": "http.response.body", "body": data.encode()})
