"""Runs the application with uvicorn, and stops it without losing accepted work."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from janusflow.arguments import quoted
from janusflow.serving.keys import VARIABLE, ApiKeys
from janusflow.serving.scheduler import Scheduler

LOG = logging.getLogger("janusflow.serving")
ANSWERS = 5  # seconds that finished answers have to be sent
KEEP_ALIVE = 30  # seconds that a connection stays open without a request


def check_host(host: str, keys: ApiKeys | None) -> None:
    """Refuses an address that others can reach, where no API key is required.

    Raises:
        ValueError: saying how to give one.
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


class DrainingServer(uvicorn.Server):
    """uvicorn's server, that finishes accepted work when it is asked to stop.

    The first SIGTERM or SIGINT: new requests get 503, accepted ones have `grace` seconds, then the process ends with
    exit code 0. The second one ends it at once.

    Args:
        config: uvicorn's.
        scheduler: that is drained.
        grace: seconds.
    """

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler, grace: float) -> None:
        super().__init__(config)
        self.scheduler, self.grace = scheduler, grace
        self.asked = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's signal handler. It would end the process by the same signal, which is no success."""
        if self.scheduler.draining:
            self.should_exit = self.force_exit = True
        self.scheduler.drain()
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.asked.set)

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serves until a signal asks it to stop.

        Args:
            listening: where clients connect.
        """
        self.loop = asyncio.get_running_loop()
        drained = asyncio.create_task(self._drain())
        try:
            await self.serve(sockets=[listening])
        finally:
            drained.cancel()

    async def _drain(self) -> None:
        await self.asked.wait()
        LOG.info("stopping: %d unfinished jobs have %g s", self.scheduler.unfinished, self.grace)
        if not await asyncio.to_thread(self.scheduler.wait_until_idle, self.grace):
            LOG.warning("the grace period is over: %d jobs are not finished", self.scheduler.unfinished)
        await asyncio.to_thread(self.scheduler.close)
        self.should_exit = True


def run(app: FastAPI, scheduler: Scheduler, *, host: str, port: int, grace: float) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        app: see `create_app`.
        scheduler: of the app; it is started here.
        host, port: to listen on.
        grace: seconds that accepted requests have when the server stops.

    Raises:
        ValueError: if the port cannot be listened on.
    """
    with _listening(host, port) as listening:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # the gate writes the lines, with ids
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=ANSWERS,
        )
        LOG.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, listening.getsockname()[1])
        scheduler.start()
        try:
            asyncio.run(_serve(config, scheduler, grace, listening))
        finally:
            scheduler.close()


async def _serve(config: uvicorn.Config, scheduler: Scheduler, grace: float, listening: socket.socket) -> None:
    await DrainingServer(config, scheduler, grace).run_until_stopped(listening)


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on port {port} of {host}: {error.strerror}; choose another --port") from error
