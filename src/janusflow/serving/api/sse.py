"""Server-sent events: a stream of answers on one response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from janusflow.serving.api.waiting import Waiting
from janusflow.serving.errors import ApiError

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must forward each part at once


def event(data: dict[str, Any], name: str | None = None) -> str:
    """Format one event."""
    line = f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
    return line if name is None else f"event: {name}\n{line}"


class EventStream(StreamingResponse):
    """Response that streams events; an error after the first event becomes the last one.

    Args:
        waiting: jobs that the events come from; cancelled if the response ends before them.
        events: see `event`.
    """

    def __init__(self, waiting: Waiting, events: AsyncIterator[str]) -> None:
        super().__init__(_guarded(events), media_type="text/event-stream", headers=HEADERS)
        self.waiting = waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. A client may disconnect before the first one, which is then never requested."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.waiting.cancel()


async def _guarded(events: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        async for one in events:
            yield one
    except ApiError as error:
        yield event(error.body(), "error")
