"""An endpoint and a judge that asks it, without waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from janusflow.evaluation.judges.endpoint import EndpointJudge
from janusflow.evaluation.judges.open_judge import open_judge
from tests.evaluation.judges.server import Handler, Server, reply

KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.answers, running.asked, running.released = [(200, reply("fine"))], [], threading.Event()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between tries, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(EndpointJudge, "_wait", lambda _, seconds: found.append(seconds))
    return found


@pytest.fixture
def judge(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens the endpoint with a key in the environment."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def open_it(**options: Any) -> Any:
        return open_judge(f"openai:model-7@{server.url}", **{"tries": 3, **options})

    return open_it
