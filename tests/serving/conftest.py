"""One server with the shipped model for all tests of the HTTP interface, on a free loopback port."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import pytest
from openai import OpenAI

from janusflow import JanusFlow
from janusflow.pipelines.janus import Janus
from janusflow.serving.app import create_app
from janusflow.serving.fetch import Fetcher
from janusflow.serving.jobs import Event, PictureDone, Request
from janusflow.serving.keys import ApiKeys
from janusflow.serving.runner import PipelineRunner
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.server import DrainingServer, uvicorn_config
from janusflow.serving.settings import Limits
from tests.conftest import golden_folders

KEY = "a-key-of-the-tests-0123456789"
LIMITS = Limits(max_steps=60, max_n=4, max_tokens=64, max_body=300_000, max_input_pixels=10_000)


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    scheduler: Scheduler
    model: Any

    def client(self, key: str = KEY) -> OpenAI:
        """The official client; errors are not retried."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def http(self, key: str = KEY) -> httpx2.Client:
        """A plain client, for what the official one cannot send."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what another thread or process does."""
    event, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        event.wait(0.02)


@contextmanager
def serving(model: JanusFlow | Janus, queue: QueueSettings, limits: Limits = LIMITS) -> Iterator[Served]:
    """A server in this process."""
    scheduler = Scheduler(PipelineRunner(), queue)
    fetcher = Fetcher(limits, allowed=lambda address: address == "127.0.0.1")
    app = create_app({"tiny": model}, scheduler, limits=limits, keys=ApiKeys([KEY]), fetcher=fetcher, page=True)
    listening = socket.create_server(("127.0.0.1", 0))
    server = DrainingServer(uvicorn_config(app, limits), scheduler, grace=5)
    scheduler.start()
    thread = threading.Thread(target=asyncio.run, args=(server.run_until_stopped(listening),))
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", scheduler, model)
    finally:
        server.handle_exit(15, None)
        thread.join()
        listening.close()


def finish(requests: Sequence[Request]) -> list[list[Event]]:
    """The events of some requests that run at the same time, in this thread."""
    scheduler, events = Scheduler(PipelineRunner()), [list[Event]() for _ in requests]
    scheduler.submit(requests, [one.append for one in events])
    while scheduler.unfinished:
        scheduler.tick()
    return events


def picture_of(events: Sequence[Event]) -> np.ndarray:
    """The finished picture."""
    assert isinstance(events[-1], PictureDone), events
    return np.asarray(events[-1].picture)


@pytest.fixture(scope="session")
def janus() -> Janus:
    """A small Janus with random weights."""
    model = JanusFlow.from_pretrained(golden_folders("janus-*")[0], device="cpu")
    assert isinstance(model, Janus)
    return model


@pytest.fixture(scope="session")
def served(tiny_model: JanusFlow) -> Iterator[Served]:
    with serving(tiny_model, QueueSettings(max_queue=8, max_pictures=4, max_texts=4)) as found:
        yield found


@pytest.fixture(scope="session")
def client(served: Served) -> OpenAI:
    return served.client()
