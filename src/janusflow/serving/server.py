"""Run the application with uvicorn, and stop it without losing accepted work."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp

from janusflow.arguments import quoted
from janusflow.serving.connections import GuardedProtocol
from janusflow.serving.keys import VARIABLE, ApiKeys
from janusflow.serving.settings import Limits

LOG = logging.getLogger("janusflow.serving")
ANSWERS = 5  # seconds in which finished answers must be sent
KEEP_ALIVE = 30  # seconds that a connection stays open without a request


def check_host(host: str, keys: ApiKeys | None) -> None:
    """Refuse an address that others can reach if no API key is required.

    Raises:
        ValueError: if the address is refused; the message says how to give a key.
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and keys is None:
        raise ValueError(
            f"host is {quoted(host)}, which others can reach; give --api-key-file FILE or set {VARIABLE}, or leave out "
            "--host"
        )


class Work(Protocol):
    """Work that a server finishes before it ends: that of a scheduler, or of its replicas."""

    @property
    def alive(self) -> bool:
        """Whether work can be done."""

    @property
    def draining(self) -> bool:
        """Whether new work is refused."""

    @property
    def unfinished(self) -> int:
        """Amount of accepted work that is not finished."""

    def start(self) -> None:
        """Start working."""

    def drain(self) -> None:
        """Accept no new work."""

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait for accepted work; return whether all of it is finished."""

    def close(self) -> None:
        """End unfinished work."""


class DrainingServer(uvicorn.Server):
    """uvicorn server that finishes accepted work when it is asked to stop.

    After the first SIGTERM or SIGINT, new requests get 503, accepted ones have `grace` seconds, and the process ends
    with exit code 0. The second signal ends it at once. If the model's thread dies, the server stops as well.

    Args:
        config: uvicorn's settings.
        work: work to drain.
        grace: seconds for accepted requests.
    """

    def __init__(self, config: uvicorn.Config, work: Work, grace: float) -> None:
        super().__init__(config)
        self.work, self.grace = work, grace
        self.asked, self.failed = asyncio.Event(), False
        self.loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Override uvicorn's signal handler, which ends the process with the same signal instead of exit code 0."""
        if self.work.draining:
            self.should_exit = self.force_exit = True
        self.work.drain()
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.asked.set)

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serve until a signal asks the server to stop.

        Args:
            listening: socket that clients connect to.
        """
        self.loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(self._drain()), asyncio.create_task(self._watch())]
        try:
            await self.serve(sockets=[listening])
        finally:
            for task in tasks:
                task.cancel()

    async def _watch(self) -> None:
        while self.work.alive or self.asked.is_set():
            await asyncio.sleep(1)
        LOG.critical("stopping: the model's thread has ended")
        self.failed = self.should_exit = True

    async def _drain(self) -> None:
        await self.asked.wait()
        LOG.info("stopping: %d unfinished jobs have %g s", self.work.unfinished, self.grace)
        if not await asyncio.to_thread(self.work.wait_until_idle, self.grace):
            LOG.warning("the grace period is over: %d jobs are not finished", self.work.unfinished)
        await asyncio.to_thread(self.work.close)
        self.should_exit = True


def uvicorn_config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """Return uvicorn's settings.

    Args:
        app: see `create_app`.
        limits: limits for connections.
    """
    guarded: Any = partial(GuardedProtocol, head_seconds=limits.head_seconds, write_seconds=limits.write_seconds)
    return uvicorn.Config(
        app,
        http=guarded,
        ws="none",
        log_config=None,
        access_log=False,  # the gate writes these lines, with ids
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=ANSWERS,
    )


def run(app: ASGIApp, work: Work, limits: Limits, *, host: str, port: int, grace: float) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: see `create_app`.
        work: work of the app; started here.
        limits: limits for connections.
        host, port: address and port to listen on.
        grace: seconds that accepted requests get when the server stops.

    Raises:
        ValueError: if the server cannot listen on the port.
        SystemExit: with exit code 1, if the work ended by itself.
    """
    with _listening(host, port) as listening:
        config = uvicorn_config(app, limits)
        LOG.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, listening.getsockname()[1])
        work.start()
        try:
            failed = asyncio.run(_serve(config, work, grace, listening))
        finally:
            work.close()
    if failed:
        raise SystemExit(1)


async def _serve(config: uvicorn.Config, work: Work, grace: float, listening: socket.socket) -> bool:
    """Serve, and return whether the work ended by itself."""
    server = DrainingServer(config, work, grace)
    await server.run_until_stopped(listening)
    return server.failed


def check_port(host: str, port: int) -> None:
    """Check that a server can listen on a port, before anything is loaded; 0 is any free port.

    Raises:
        ValueError: if it cannot.
    """
    _listening(host, port).close()


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on port {port} of {host}: {error.strerror}; choose another --port") from error
