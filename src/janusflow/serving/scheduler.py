"""Thread that owns the model: a bounded queue, turns for texts and pictures, cancellation, deadlines, draining."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Annotated, Any, TypeVar

from annotated_types import Ge
from pydantic.dataclasses import dataclass as checked_dataclass

from janusflow.serving.jobs import (
    ENDS,
    KINDS,
    CancelledError,
    DeadlineError,
    Event,
    Failed,
    Job,
    Kind,
    Preview,
    Request,
    StoppedError,
    Token,
)
from janusflow.serving.metrics import Metrics
from janusflow.serving.policy import Policy, PolicySettings
from janusflow.serving.runner import Runner

T = TypeVar("T")
LOG = logging.getLogger("janusflow.serving")
LONGEST_RETRY = 120  # longest time that a client is asked to wait, in seconds


@checked_dataclass(frozen=True)
class QueueSettings:
    """How many jobs are accepted.

    Attributes:
        max_queue: largest number of texts, and of pictures, that wait to start; more are refused.
        max_pictures: largest number of pictures in progress at the same time.
        max_texts: largest number of texts in progress at the same time; each has a cache.
    """

    max_queue: Annotated[int, Ge(1)] = 64
    max_pictures: Annotated[int, Ge(1)] = 8
    max_texts: Annotated[int, Ge(1)] = 32


class QueueFullError(RuntimeError):
    """The queue is full.

    Args:
        retry_after: seconds until there will probably be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class DrainingError(RuntimeError):
    """The server is about to stop and accepts no new work."""


class Scheduler:
    """Run jobs in turns.

    Args:
        runner: advances the jobs.
        queue: how many jobs are accepted.
        policy: how turns are chosen.
        metrics: metrics to update.
        clock: returns the time in seconds; for tests.
    """

    def __init__(
        self,
        runner: Runner,
        queue: QueueSettings | None = None,
        policy: PolicySettings | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner, self.settings, self.clock = runner, queue or QueueSettings(), clock
        self.policy = Policy(policy or PolicySettings())
        self.metrics = metrics or Metrics()
        self.draining = False
        self._room = {"text": self.settings.max_texts, "picture": self.settings.max_pictures}
        self._waiting: dict[Kind, list[Job]] = {kind: [] for kind in KINDS}
        self._running: dict[Kind, list[tuple[Job, Any]]] = {kind: [] for kind in KINDS}
        self._run_seconds: dict[Kind, float] = dict.fromkeys(KINDS, 1.0)
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="janusflow-model", daemon=True)

    # --- called from any thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread unless it has been started."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def submit(
        self,
        requests: Sequence[Request],
        listeners: Sequence[Callable[[Event], None]],
        *,
        priority: int = 0,
        timeout: float = math.inf,
    ) -> list[Job]:
        """Accept all requests, or none.

        Args:
            requests: requests of one client's call.
            listeners: one per request; called in the model's thread, and must return at once.
            priority: 0 is first.
            timeout: seconds after which an unfinished job fails.

        Raises:
            QueueFullError: if there is no room for all of them.
            DrainingError: after `drain`.
        """
        with self._changed:
            if self.draining:
                self.metrics.rejected.labels("draining").inc(len(requests))
                raise DrainingError("the server is shutting down; send the request to another one")
            for kind in KINDS:
                asked = sum(request.kind == kind for request in requests)
                missing = len(self._waiting[kind]) + asked - self.settings.max_queue
                if asked and missing > 0:
                    self.metrics.rejected.labels("queue_full").inc(len(requests))
                    raise QueueFullError(self._retry_after(kind, missing))
            now = self.clock()
            jobs = [
                Job(request, listener, priority, now + timeout, now)
                for request, listener in zip(requests, listeners, strict=True)
            ]
            for job in jobs:
                self._waiting[job.request.kind].append(job)
            self._report_queue()
            self._changed.notify_all()
        return jobs

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the model's thread between two turns, and return its result or raise its error.

        Raises:
            StoppedError: if the thread is not running, or ends before the function is called.
        """
        result = Future[T]()
        with self._changed:
            if self._closing or not self.alive:
                raise StoppedError("the model's thread does not run")
            self._calls.append((function, result))
            self._changed.notify_all()
        return result.result()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs before their next step; jobs that have ended stay as they are."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._changed.notify_all()

    def drain(self) -> None:
        """Accept no new work from now on; accepted work is finished."""
        with self._changed:
            self.draining = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait up to `seconds` until all accepted work is finished; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.unfinished, seconds)

    def close(self) -> None:
        """End the thread after its current tick; unfinished jobs fail."""
        with self._changed:
            self.draining = self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return sum(map(len, self._waiting.values()))

    @property
    def unfinished(self) -> int:
        """Number of jobs in the queue and in progress."""
        return self.waiting + sum(map(len, self._running.values()))

    def _retry_after(self, kind: Kind, missing: int) -> int:
        """Estimate the seconds until the queue has room for as many more jobs as are missing."""
        seconds = missing * self._run_seconds[kind] / self._room[kind]
        return min(LONGEST_RETRY, max(1, math.ceil(seconds)))

    # --- the model's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._call()
                self.tick()
                with self._changed:
                    if not self.unfinished:
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self.unfinished or self._calls or self._closing)
        except BaseException:
            LOG.critical("the model's thread ended", exc_info=True)
            raise
        finally:
            with self._changed:
                self.draining = self._closing = True
                calls, self._calls = self._calls, []
            stopped = StoppedError("the server stopped before the request was finished")
            for _, result in calls:
                result.set_exception(stopped)
            self._end_all(stopped)

    def _call(self) -> None:
        with self._changed:
            calls, self._calls = self._calls, []
        for function, result in calls:
            try:
                result.set_result(function())
            except BaseException as error:  # the caller's; the thread continues
                result.set_exception(error)

    def tick(self) -> None:
        """Run one turn: end jobs that are cancelled or late, start waiting jobs, and advance the jobs of one kind."""
        began = self.clock()
        self._sweep()
        self._admit()
        running = {kind: len(jobs) for kind, jobs in self._running.items()}
        if not any(running.values()):
            self._report_queue()
            return
        kind, count = self.policy.choose(texts=running["text"], pictures=running["picture"])
        turn = self._running[kind][:count]
        outcomes = self.runner.advance([state for _, state in turn])
        for (job, _), events in zip(turn, outcomes, strict=True):
            for event in events:
                self._send(job, event)
        with self._changed:  # jobs that had a turn go behind those that wait for one
            self._running[kind] = [entry for entry in self._running[kind][count:] + turn if not entry[0].ended]
        for job, state in turn:
            if job.ended:
                self.runner.finish(state)
        seconds = self.clock() - began  # includes all work for these jobs, not only their forward
        self.policy.record(kind, len(turn), seconds, both=all(running.values()))
        self.metrics.batch.labels(kind).observe(len(turn))
        self.metrics.busy.labels(kind).inc(seconds)
        self._report_queue()

    def _sweep(self) -> None:
        """End jobs that are cancelled or late."""
        now, over, gone = self.clock(), list[Job](), list[tuple[Job, Any]]()
        with self._changed:
            for kind in KINDS:
                over += [job for job in self._waiting[kind] if job.over(now)]
                gone += [(job, state) for job, state in self._running[kind] if job.over(now)]
                self._waiting[kind] = [job for job in self._waiting[kind] if not job.over(now)]
                self._running[kind] = [(job, state) for job, state in self._running[kind] if not job.over(now)]
        for _, state in gone:
            self.runner.finish(state)
        for job in [*over, *(job for job, _ in gone)]:
            if job.cancelled:
                self._send(job, Failed(CancelledError("the request was cancelled")))
            else:
                self._send(job, Failed(DeadlineError("the request was not finished within its timeout")))

    def _admit(self) -> None:
        """Start waiting jobs while there is room."""
        now, failed = self.clock(), list[tuple[Job, Exception]]()
        with self._changed:
            for kind in KINDS:
                room = self._room[kind] - len(self._running[kind])
                if room <= 0 or not self._waiting[kind]:
                    continue
                self._waiting[kind].sort(key=Job.order)
                chosen, self._waiting[kind] = self._waiting[kind][:room], self._waiting[kind][room:]
                for job in chosen:
                    job.started = now
                    try:
                        self._running[kind].append((job, self.runner.start(job.request)))
                    except Exception as error:  # of one job; the thread continues
                        LOG.exception("a job could not be started")
                        failed.append((job, error))
                    self.metrics.wait.labels(kind).observe(now - job.submitted)
        for job, reason in failed:
            self._send(job, Failed(reason))

    def _send(self, job: Job, event: Event) -> None:
        kind = job.request.kind
        if isinstance(event, Token):
            self.metrics.tokens.inc()
        elif isinstance(event, Preview):
            self.metrics.previews.inc()
        elif isinstance(event, ENDS):
            job.ended = True
            self.metrics.count_end(kind, event)
            if job.started is not None and not isinstance(event, Failed):
                seconds = self.clock() - job.started
                self.metrics.run.labels(kind).observe(seconds)
                self._run_seconds[kind] = 0.8 * self._run_seconds[kind] + 0.2 * seconds
        try:
            job.listener(event)
        except Exception:  # a listener whose event loop is closed must not end the thread
            job.cancelled = True

    def _end_all(self, error: Exception) -> None:
        with self._changed:
            jobs = [job for waiting in self._waiting.values() for job in waiting]
            states = [entry for running in self._running.values() for entry in running]
            self._waiting = {kind: [] for kind in KINDS}
            self._running = {kind: [] for kind in KINDS}
            self._changed.notify_all()
        for job, state in [*((job, None) for job in jobs), *states]:
            if state is not None:
                self.runner.finish(state)
            self._send(job, Failed(error))
        self._report_queue()

    def _report_queue(self) -> None:
        for kind in KINDS:
            self.metrics.queue.labels(kind).set(len(self._waiting[kind]))
            self.metrics.running.labels(kind).set(len(self._running[kind]))
