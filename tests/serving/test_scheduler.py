"""The queue, turns, cancellation and deadlines, with a runner that computes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from janusflow.serving.jobs import (
    CancelledError,
    DeadlineError,
    Event,
    Failed,
    PictureDone,
    StoppedError,
    TextDone,
    Token,
)
from janusflow.serving.policy import PolicySettings
from janusflow.serving.scheduler import DrainingError, QueueFullError, QueueSettings, Scheduler


class Asked:
    """A request that takes some ticks."""

    def __init__(self, kind: str = "text", ticks: int = 3) -> None:
        self.kind, self.ticks = kind, ticks


class CountingRunner:
    """Each tick of a job takes a second on its clock."""

    def __init__(self) -> None:
        self.now, self.finished, self.turns = 0.0, list[Asked](), list[list[Asked]]()

    def start(self, request: Any) -> Any:
        return request

    def advance(self, states: Sequence[Asked]) -> list[list[Event]]:
        self.turns.append(list(states))
        self.now += len(states)
        return [self._step(state) for state in states]

    def _step(self, state: Asked) -> list[Event]:
        state.ticks -= 1
        if state.ticks:
            return [Token("a")] if state.kind == "text" else []
        return [TextDone("", "stop", 1)] if state.kind == "text" else [PictureDone(None)]  # type: ignore[arg-type]

    def finish(self, state: Asked) -> None:
        self.finished.append(state)


class Desk:
    """A scheduler whose ticks the test makes, and what its jobs sent."""

    def __init__(self, **queue: int) -> None:
        self.runner = CountingRunner()
        self.scheduler = Scheduler(
            self.runner,
            QueueSettings(**queue),
            PolicySettings(max_text_wait=100, picture_share=0.5),
            clock=lambda: self.runner.now,
        )
        self.sent: dict[Asked, list[Event]] = {}

    def submit(self, *requests: Asked, **options: Any) -> list[Any]:
        listeners: list[Callable[[Event], None]] = [self.sent.setdefault(one, []).append for one in requests]
        return self.scheduler.submit(requests, listeners, **options)  # type: ignore[arg-type]

    def run(self, ticks: int = 100) -> None:
        for _ in range(ticks):
            self.scheduler.tick()

    def error(self, request: Asked) -> Exception:
        last = self.sent[request][-1]
        assert isinstance(last, Failed)
        return last.error


def test_jobs_of_both_kinds_advance_in_turns_and_are_freed_at_their_end() -> None:
    desk, text, picture = Desk(), Asked("text", 4), Asked("picture", 4)
    desk.submit(text)
    desk.submit(picture)
    desk.run()
    assert [type(event) for event in desk.sent[text]] == [Token, Token, Token, TextDone]
    assert isinstance(desk.sent[picture][-1], PictureDone)
    assert desk.runner.turns[:4] in ([[picture], [text]] * 2, [[text], [picture]] * 2)
    assert set(desk.runner.finished) == {text, picture}
    assert desk.scheduler.unfinished == 0


def test_a_full_queue_takes_all_requests_of_a_call_or_none() -> None:
    desk = Desk(max_queue=3)
    desk.submit(Asked(), Asked())
    with pytest.raises(QueueFullError, match="try again in") as refused:
        desk.submit(Asked(), Asked())
    assert refused.value.retry_after >= 1
    desk.submit(Asked())
    assert desk.scheduler.waiting == 3


def test_each_kind_has_its_own_queue_and_time_to_wait() -> None:
    desk = Desk(max_queue=2, max_pictures=1, max_texts=2)
    desk.scheduler._run_seconds |= {"picture": 8.0, "text": 1.0}
    desk.submit(Asked("picture"), Asked("picture"))
    with pytest.raises(QueueFullError) as pictures:
        desk.submit(Asked("picture"), Asked("picture"))
    desk.submit(Asked(), Asked())
    with pytest.raises(QueueFullError) as texts:
        desk.submit(Asked())
    assert (pictures.value.retry_after, texts.value.retry_after) == (16, 1)


def test_more_jobs_than_may_be_in_work_wait_and_the_first_priority_starts_first() -> None:
    desk, later, sooner = Desk(max_texts=1), Asked(), Asked()
    desk.submit(later, priority=5)
    desk.submit(sooner, priority=0)
    desk.run(4)
    assert [turn[0] for turn in desk.runner.turns] == [sooner] * 3 + [later]


def test_pictures_beyond_a_turn_go_first_in_the_next_one() -> None:
    desk = Desk()
    pictures = [Asked("picture", 2) for _ in range(3)]
    desk.scheduler.policy.cost = 60.0  # one of them fits before the text's token is due
    desk.submit(*pictures)
    desk.submit(Asked("text", 9))
    desk.run()
    advanced = [state for turn in desk.runner.turns for state in turn if state.kind == "picture"]
    assert advanced[:3] == pictures


@pytest.mark.parametrize("started", [False, True])
def test_a_cancelled_job_does_no_further_step_and_is_freed(started: bool) -> None:
    desk, asked = Desk(), Asked("picture", 50)
    (job,) = desk.submit(asked)
    desk.run(2 * started)
    desk.scheduler.cancel([job])
    desk.run(1)
    assert asked.ticks == 50 - 2 * started
    assert isinstance(desk.error(asked), CancelledError)
    assert desk.runner.finished == [asked] * started
    assert desk.scheduler.unfinished == 0


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_metrics_of_an_idle_scheduler_count_no_job(end: str) -> None:
    desk = Desk(max_pictures=1)
    jobs = desk.submit(Asked("picture", 50), Asked("picture", 50))
    desk.run(1)
    values = [desk.scheduler.metrics.running, desk.scheduler.metrics.queue]
    assert [value.labels("picture")._value.get() for value in values] == [1, 1]
    if end == "cancelled":
        desk.scheduler.cancel(jobs)
        desk.run(1)
    else:
        desk.scheduler._end_all(StoppedError())
    assert [value.labels("picture")._value.get() for value in values] == [0, 0]


def test_a_job_that_is_late_fails_waiting_or_in_work() -> None:
    desk, working, queued = Desk(max_texts=1), Asked(ticks=9), Asked(ticks=9)
    desk.submit(working, queued, timeout=3)
    desk.run(6)
    assert isinstance(desk.error(working), DeadlineError)
    assert isinstance(desk.error(queued), DeadlineError)
    assert desk.runner.finished == [working]


def test_a_draining_scheduler_refuses_new_work_and_finishes_what_it_accepted() -> None:
    desk, asked = Desk(), Asked()
    desk.submit(asked)
    desk.scheduler.drain()
    with pytest.raises(DrainingError):
        desk.submit(Asked())
    desk.run()
    assert isinstance(desk.sent[asked][-1], TextDone)
    assert desk.scheduler.wait_until_idle(0)


def test_closing_fails_what_is_unfinished() -> None:
    desk, asked = Desk(), Asked(ticks=10**9)
    desk.scheduler.start()
    desk.submit(asked)
    desk.scheduler.close()
    assert isinstance(desk.error(asked), StoppedError)
    assert not desk.scheduler.alive


def test_a_listener_that_fails_cancels_its_job_only() -> None:
    desk, asked, broken = Desk(), Asked(), Asked()

    def fail(event: Event) -> None:
        raise RuntimeError("the event loop is closed")

    desk.scheduler.submit([broken], [fail])  # type: ignore[list-item]
    desk.submit(asked)
    desk.run()
    assert isinstance(desk.sent[asked][-1], TextDone)
    assert desk.scheduler.unfinished == 0


def test_calls_run_in_the_models_thread_and_their_errors_are_the_callers() -> None:
    scheduler = Desk().scheduler
    scheduler.start()
    try:
        assert scheduler.call(lambda: threading.current_thread().name) == "janusflow-model"
        with pytest.raises(ZeroDivisionError):
            scheduler.call(lambda: 1 / 0)
        assert scheduler.call(lambda: 2) == 2
    finally:
        scheduler.close()
    with pytest.raises(StoppedError):
        scheduler.call(lambda: 3)


def test_a_call_that_waits_when_the_thread_ends_fails() -> None:
    scheduler, began, closing = Desk().scheduler, threading.Event(), threading.Event()
    scheduler.start()

    def hold() -> None:
        began.set()
        closing.wait(10)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(scheduler.call, hold)
        began.wait(10)
        second = pool.submit(scheduler.call, lambda: 2)
        while not scheduler._calls:
            time.sleep(0.001)
        closed = pool.submit(scheduler.close)
        while not scheduler.draining:
            time.sleep(0.001)
        closing.set()
        closed.result(10)
        first.result(10)
        with pytest.raises(StoppedError):
            second.result(10)
