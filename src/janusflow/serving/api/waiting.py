"""From the model's thread to the event loop: the events of one request's jobs, for as long as its client listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

from fastapi import Request

from janusflow.serving import jobs
from janusflow.serving.errors import ApiError, as_api_error
from janusflow.serving.jobs import ENDS, CancelledError, DeadlineError, Event, Failed, StoppedError
from janusflow.serving.scheduler import Scheduler

EXPECTED = (CancelledError, DeadlineError, StoppedError)


class Waiting:
    """The jobs of one HTTP request.

    Args:
        scheduler: runs them.
        http: its client; when it disconnects, the jobs are cancelled.
    """

    def __init__(self, scheduler: Scheduler, http: Request) -> None:
        self.scheduler, self.http = scheduler, http
        self.loop, self.inbox = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Event]]()
        self.jobs: list[jobs.Job] = []

    def submit(self, requests: Sequence[jobs.Request], *, priority: int, timeout: float) -> Self:
        """Hands the requests to the scheduler.

        Raises:
            ApiError: if they are not accepted.
        """
        listeners = [partial(self._put, number) for number in range(len(requests))]
        try:
            self.jobs = self.scheduler.submit(requests, listeners, priority=priority, timeout=timeout)
        except RuntimeError as error:
            raise as_api_error(error) from error
        return self

    def _put(self, number: int, event: Event) -> None:
        self.loop.call_soon_threadsafe(self.inbox.put_nowait, (number, event))

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The number of a request with each of its events, until all have ended.

        Raises:
            ApiError: if one of them fails, or the client disconnects.
        """
        left = len(self.jobs)
        gone = asyncio.create_task(self._disconnect())
        try:
            while left:
                number, event = await self._next(gone)
                if isinstance(event, Failed):
                    raise as_api_error(event.error if isinstance(event.error, EXPECTED) else RuntimeError())
                left -= isinstance(event, ENDS)
                yield number, event
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            self.cancel()

    def cancel(self) -> None:
        """Cancels the jobs that have not ended."""
        self.scheduler.cancel([job for job in self.jobs if not job.ended])

    async def _next(self, gone: asyncio.Task[None]) -> tuple[int, Event]:
        if not self.inbox.empty():
            return self.inbox.get_nowait()
        following = asyncio.create_task(self.inbox.get())
        await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            return following.result()
        following.cancel()
        raise ApiError(499, "the client disconnected", code="cancelled")

    async def _disconnect(self) -> None:
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
