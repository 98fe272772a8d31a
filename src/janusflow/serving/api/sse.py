"""Server-sent events: a stream of answers on one response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from janusflow.serving.errors import ApiError

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must hand each part on at once


def event(data: dict[str, Any], name: str | None = None) -> str:
    """One event."""
    line = f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
    return line if name is None else f"event: {name}\n{line}"


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """A response of events; an error after the first one becomes the last event."""

    async def guarded() -> AsyncIterator[str]:
        try:
            async for one in events:
                yield one
        except ApiError as error:
            yield event(error.body(), "error")

    return StreamingResponse(guarded(), media_type="text/event-stream", headers=HEADERS)
