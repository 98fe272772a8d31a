"""Time limits of a connection, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from janusflow.serving.connections import GuardedProtocol


class Timer:
    """A call that is due."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cancelled = call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop whose timers the test fires."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, function: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(lambda: function(*args)))
        return self.timers[-1]

    def fire(self) -> None:
        """Let the time of all timers pass."""
        due, self.timers = self.timers, []
        for timer in due:
            if not timer.cancelled:
                timer.call()


class Transport:
    """A transport with bytes that its client has not read."""

    def __init__(self) -> None:
        self.unsent, self.aborted = 100, False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def connection() -> tuple[GuardedProtocol, Loop, Transport]:
    """A connection whose client reads an answer too slowly."""
    loop, transport = Loop(), Transport()
    config = uvicorn.Config(lambda: None)
    protocol = GuardedProtocol(
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=cast(asyncio.AbstractEventLoop, loop),
        head_seconds=10,
        write_seconds=30,
    )
    protocol.connection_made(cast(asyncio.Transport, transport))
    loop.timers.clear()  # that of the header
    protocol.pause_writing()
    return protocol, loop, transport


def test_a_client_that_reads_steadily_keeps_its_connection_until_it_stops(
    connection: tuple[GuardedProtocol, Loop, Transport],
) -> None:
    _, loop, transport = connection
    for _ in range(3):
        transport.unsent -= 10
        loop.fire()
        assert not transport.aborted
    loop.fire()
    assert transport.aborted


def test_a_client_that_read_everything_may_pause(connection: tuple[GuardedProtocol, Loop, Transport]) -> None:
    protocol, loop, transport = connection
    transport.unsent = 0
    protocol.resume_writing()
    loop.fire()
    assert not transport.aborted and not loop.timers
