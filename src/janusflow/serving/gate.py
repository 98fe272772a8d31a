"""Gate for every request: gives it an id, checks key, rate limit and the body's size and time, and writes a log line.

This ASGI middleware checks key and rate, and reads the whole body, within its limits, before the application runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from janusflow.serving.errors import ApiError, respond
from janusflow.serving.keys import ApiKeys, RateLimit
from janusflow.serving.metrics import Metrics
from janusflow.serving.settings import Limits

LOG = logging.getLogger("janusflow.serving")
OPEN = ("/", "/health/live", "/health/ready")  # paths that need no key
PAGE = "/page/"  # nor do these: the page asks for the key
BEARER = "bearer "
REQUEST_ID = b"x-request-id"
LOGGED = 200  # characters of a path


class _GoneError(Exception):
    """The client has disconnected."""


class Gate:
    """Outermost middleware.

    Args:
        app: application behind the gate.
        limits: limits of a request.
        keys: accepted API keys; None accepts everybody.
        metrics: counts the requests that are refused here.
        clock: returns the time in seconds; for tests.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        keys: ApiKeys | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.limits, self.keys, self.metrics = app, limits, keys, metrics
        self.rate = RateLimit(limits.requests_per_minute, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, state = time.monotonic(), scope.setdefault("state", {})
        number = state.setdefault("request_id", f"req_{secrets.token_hex(12)}")  # a front may have given one already
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [pair for pair in message["headers"] if pair[0] != REQUEST_ID]
                message = {**message, "headers": [*others, (REQUEST_ID, number.encode())]}
            await send(message)  # `connections.py` closes the connection of a client that reads nothing

        try:
            self._check(scope)
            body = await self._read(scope, receive)
            await self.app(scope, _replay(body, receive), answer)
        except ApiError as error:
            await respond(error)(scope, receive, answer)
        except _GoneError:
            status = status or 499
        except Exception:
            LOG.exception("%s failed", number)
            if not status:
                await respond(ApiError(500, f"the server failed; its log has more under {number}"))(
                    scope, receive, answer
                )
        finally:
            seconds = time.monotonic() - began
            path = scope["raw_path"].decode("latin-1")[:LOGGED]  # not decoded, so it cannot contain a line break
            LOG.info("%s %s %s %s %.3f s", number, scope["method"], path, status or "no answer", seconds)

    def _check(self, scope: Scope) -> None:
        """Check the key and its rate limit.

        Raises:
            ApiError: if the request is refused.
        """
        if self.keys is None or scope["path"] in OPEN or scope["path"].startswith(PAGE):
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
        client = self.keys.find(given[len(BEARER) :].strip()) if given.lower().startswith(BEARER) else None
        if client is None:
            self.metrics.rejected.labels("key").inc()
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        seconds = self.rate.take(client)
        if seconds:
            self.metrics.rejected.labels("rate").inc()
            wait = str(math.ceil(seconds))
            message = f"more than {self.limits.requests_per_minute} requests a minute; try again in {wait} s"
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": wait})

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Read the whole body.

        Raises:
            ApiError: if the body is too large or too slow.
            _GoneError: if the client disconnects meanwhile.
        """
        most = self.limits.max_body
        closing = {"Connection": "close"}  # or the rest of the body would be read as the next request
        large = ApiError(413, f"the body has more than {most} bytes", code="body_too_large", headers=closing)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > most:
            raise large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError as error:
            late = f"the body did not arrive within {self.limits.body_seconds:g} s"
            raise ApiError(408, late, code="body_timeout", headers=closing) from error


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first gives the body that was read, and then whatever follows."""
    first: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed
