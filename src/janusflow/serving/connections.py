"""Close connections that make no progress: those without a request, and those whose client reads no answer.

uvicorn limits neither, so a client could hold any number of connections open by sending half of a header.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol for one connection, with two more time limits.

    Args:
        head_seconds: seconds within which a request's header must arrive, from the connection or its first byte on.
        write_seconds: seconds that a client may read nothing while an answer waits to be sent.
        **options: uvicorn's options.
    """

    def __init__(self, *, head_seconds: float, write_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.head_seconds, self.write_seconds = head_seconds, write_seconds
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._answering():
            self._stop_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def on_response_complete(self) -> None:
        """Limit the time for the next header if part of it has arrived; otherwise uvicorn limits the idle time."""
        super().on_response_complete()
        if self.conn.trailing_data[0] and self._head is None and not self._answering():
            self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`; called when too much data waits to be sent."""
        super().pause_writing()
        self._limit_write()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        super().resume_writing()
        self._stop_write()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_head()
        self._stop_write()
        super().connection_lost(exc)

    def _limit_write(self) -> None:
        """Check every `write_seconds` whether the client has read something; if not, close the connection."""
        unsent = self.transport.get_write_buffer_size()
        self._write = self.loop.call_later(self.write_seconds, self._check_write, unsent)

    def _check_write(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._limit_write()
        else:
            self.transport.abort()

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_write(self) -> None:
        if self._write is not None:
            self._write.cancel()
            self._write = None
