"""Pass the events of a request's jobs from the model's thread to the event loop, as long as the client listens."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

from fastapi import Request

from janusflow.serving import jobs
from janusflow.serving.errors import ApiError, as_api_error
from janusflow.serving.jobs import ENDS, CancelledError, DeadlineError, Event, Failed, StoppedError
from janusflow.serving.scheduler import Scheduler

LOG = logging.getLogger("janusflow.serving")
EXPECTED = (CancelledError, DeadlineError, StoppedError)


class Waiting:
    """Jobs of one HTTP request.

    The event loop is woken once for all waiting events, and for a whole answer only at the end of a job. Waking it for
    each token would take the interpreter away from the model's thread.

    Args:
        scheduler: runs the jobs.
        http: the request; when its client disconnects, the jobs are cancelled.
        stream: whether events are needed as they arrive.
    """

    def __init__(self, scheduler: Scheduler, http: Request, *, stream: bool) -> None:
        self.scheduler, self.http, self.stream = scheduler, http, stream
        self.loop, self.inbox = asyncio.get_running_loop(), deque[tuple[int, Event]]()
        self.jobs: list[jobs.Job] = []
        self._woken, self._gone = asyncio.Event(), False

    def submit(self, requests: Sequence[jobs.Request], *, priority: int, timeout: float) -> Self:
        """Submit the requests to the scheduler.

        Raises:
            ApiError: if the requests are not accepted.
        """
        listeners = [partial(self._put, number) for number in range(len(requests))]
        try:
            self.jobs = self.scheduler.submit(requests, listeners, priority=priority, timeout=timeout)
        except RuntimeError as error:
            raise as_api_error(error) from error
        return self

    def _put(self, number: int, event: Event) -> None:
        """Receive an event, in the model's thread."""
        self.inbox.append((number, event))
        if self.stream or isinstance(event, ENDS):
            self.loop.call_soon_threadsafe(self._woken.set)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Yield the number of a request with each of its events, until all have ended.

        Raises:
            ApiError: if a request fails, or the client disconnects.
        """
        left = len(self.jobs)
        watching = asyncio.create_task(self._watch())
        try:
            while left:
                while not self.inbox:
                    if self._gone:
                        raise ApiError(499, "the client disconnected", code="cancelled")
                    await self._woken.wait()
                    self._woken.clear()
                number, event = self.inbox.popleft()
                if isinstance(event, Failed):
                    if not isinstance(event.error, EXPECTED):
                        LOG.error("%s failed", self.http.state.request_id, exc_info=event.error)
                        raise as_api_error(RuntimeError())
                    raise as_api_error(event.error)
                left -= isinstance(event, ENDS)
                yield number, event
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            self.cancel()

    def cancel(self) -> None:
        """Cancel the jobs that have not ended."""
        self.scheduler.cancel([job for job in self.jobs if not job.ended])

    async def _watch(self) -> None:
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._woken.set()
