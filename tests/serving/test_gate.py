"""What the gate passes on."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from janusflow.serving.gate import Gate
from janusflow.serving.metrics import Metrics
from janusflow.serving.settings import Limits

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers in parts."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"a", b"b", b""):
        await send({"type": "http.response.body", "body": part, "more_body": bool(part)})


def test_a_part_that_is_read_slowly_is_not_cut_off() -> None:
    sent = list[Message]()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        read = asyncio.Event()
        asyncio.get_running_loop().call_later(10 * limits.write_seconds, read.set)
        await read.wait()
        sent.append(message)

    limits = Limits(write_seconds=0.0005)
    asyncio.run(Gate(stream, limits, None, Metrics())(dict(SCOPE), receive, send))
    assert b"".join(message.get("body", b"") for message in sent) == b"ab"
