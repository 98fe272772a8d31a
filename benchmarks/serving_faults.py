"""Overload and faults of `janusflow serve`, with a separate server on a loopback port and the shipped model.

python benchmarks/serving_faults.py overload --minutes 15    twice the sustainable load: every answer is checked
python benchmarks/serving_faults.py stop                     SIGTERM under load: accepted requests are finished
python benchmarks/serving_faults.py clients                  slow readers, half-open sockets, truncated bodies
"""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import time
from collections import Counter
from typing import Annotated, Any

import httpx2
import numpy as np
import psutil
import typer
from PIL import Image
from serving_load import CHAT, KINDS, PICTURES, PROMPTS, TOKENS, picture, server, text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
VARIETY = 24  # different requests of each kind, with answers computed offline
FLAT = 0.03  # allowed growth of memory after the first minute


def offline() -> dict[str, list[Any]]:
    """Return the pipeline's answers to the first requests of each kind."""
    from janusflow import JanusFlow

    model = JanusFlow.from_pretrained("tiny")
    pictures = []
    for number in range(VARIETY):
        body = picture(number)
        pictures.append(np.asarray(model.generate(body.pop("prompt"), progress=False, **body)[0], int))
    texts = [
        model.ask(text(n)["messages"][0]["content"], max_new_tokens=TOKENS, do_sample=True, temperature=2.0, seed=n)
        for n in range(VARIETY)
    ]
    return {"picture": pictures, "text": texts}


def same(kind: str, answer: Any, expected: Any) -> bool:
    """Return whether an answer equals the offline one; a picture may differ by one level of 255."""
    if kind == "text":
        return bool(answer["choices"][0]["message"]["content"] == expected)
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))), int)
    return bool(np.abs(found - expected).max() <= 1)


@app.command()
def overload(
    minutes: float = 15, warm: Annotated[float, typer.Option(help="Minutes before memory is measured.")] = 1
) -> None:
    """Send requests at twice the rate that the server sustains; all accepted ones must be right, and memory flat."""
    expected, seen = offline(), Counter[str]()
    memory: list[tuple[float, float]] = []

    async def one(http: httpx2.AsyncClient, number: int, checked: bool = True) -> None:
        kind = ("picture", "text")[number % 2]
        path, make = KINDS[kind]
        answer = await http.post(path, json=make(number // 2 % VARIETY))
        if answer.status_code == 429:
            seen["refused" if int(answer.headers["Retry-After"]) >= 1 else "refused without Retry-After"] += checked
        elif answer.status_code != 200:
            seen[f"status {answer.status_code}"] += 1
        else:
            right = same(kind, answer.json(), expected[kind][number // 2 % VARIETY])
            seen["right" if right else "WRONG"] += checked

    async def measure(url: str, process: psutil.Process) -> float:
        async with httpx2.AsyncClient(base_url=url, timeout=600, limits=httpx2.Limits(max_connections=None)) as http:
            began, count = time.monotonic(), 0
            while time.monotonic() - began < 10:
                await asyncio.gather(*(one(http, count + index, checked=False) for index in range(16)))
                count += 16
            rate = 2 * count / (time.monotonic() - began)
            began, tasks, number = time.monotonic(), set[asyncio.Task[None]](), 0
            while (now := time.monotonic() - began) < 60 * minutes:
                task = asyncio.create_task(one(http, number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                if not memory or now - memory[-1][0] > 5:
                    memory.append((now, process.memory_info().rss))
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            await asyncio.gather(*tasks)
            return rate

    with server("--max-queue", "32") as running:
        rate = asyncio.run(measure(running.url, psutil.Process(running.process.pid)))
    after = [size for when, size in memory if when >= 60 * warm] or [memory[-1][1]]
    growth = max(after) / after[0] - 1
    print(f"{rate:.1f} requests/s for {minutes:g} minutes: {dict(seen)}")
    print(f"memory after {warm:g} minutes: {after[0] / 2**20:.0f} MiB, later at most {growth:+.1%}")
    assert not [name for name in seen if name not in ("right", "refused")] and growth <= FLAT


@app.command()
def stop(clients: int = 16) -> None:
    """Send SIGTERM while all clients wait: each gets its answer, 503, or a refused connection; exit code 0."""
    seen = Counter[str]()

    async def one(http: httpx2.AsyncClient, number: int) -> None:
        kind = ("picture", "text")[number % 2]
        path, make = KINDS[kind]
        while True:
            try:
                answer = await http.post(path, json=make(number))
            except httpx2.ConnectError:
                seen["connection refused"] += 1
                return
            except httpx2.TransportError as error:
                seen[f"{type(error).__name__}"] += 1
                return
            seen["200" if answer.status_code == 200 else answer.json()["error"]["message"]] += 1
            if answer.status_code != 200:
                return

    async def run(url: str, terminate: Any) -> float:
        async with httpx2.AsyncClient(base_url=url, timeout=120) as http:
            tasks = [asyncio.create_task(one(http, number)) for number in range(clients)]
            await asyncio.sleep(4)
            began = time.monotonic()
            await asyncio.to_thread(terminate)
            took = time.monotonic() - began
            await asyncio.gather(*tasks)
            return took

    with server() as running:
        took = asyncio.run(run(running.url, running.stop))
        code = running.process.returncode
    print(f"exit code {code} after {took:.1f} s; {dict(seen)}")
    refused = {"the server is shutting down; send the request to another one", "connection refused"}
    assert code == 0 and set(seen) <= {"200", *refused}


def raw(url: str, data: bytes, buffer: int | None = None) -> socket.socket:
    """Open a connection and send some bytes."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(60)
    connection.connect((host, int(port)))
    connection.sendall(data)
    return connection


def post(path: str, length: int) -> bytes:
    """Return the header of a request."""
    fields = ("Host: x", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((f"POST {path} HTTP/1.1", *fields, "", "")).encode()


def ended(connection: socket.socket) -> float:
    """Return the seconds until the server closes a connection; what it sends is read."""
    began = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


@app.command()
def clients(each: Annotated[int, typer.Option(help="Number of connections of each kind.")] = 20) -> None:
    """Run misbehaving clients along with normal ones; the server must drop the former and answer the latter."""
    stream = f'{{"prompt": "{PROMPTS[0]}", "stream": true, "partial_images": 3}}'.encode()
    asked = post(PICTURES, len(stream)) + stream
    large = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 500  # more than a connection's buffers hold
    kinds = {
        "nothing": b"",
        "half a header": b"GET /v1/models HTTP/1.1\r\nHos",
        "half a body": post(CHAT, 1000) + b'{"model":',
        "not HTTP": bytes(range(256)),
    }
    limits = ("head_seconds=2", "body_seconds=2", "write_seconds=2")
    options = [part for limit in limits for part in ("--limit", limit)]
    with server(*options) as running, httpx2.Client(base_url=running.url, timeout=60) as http:
        process = psutil.Process(running.process.pid)
        before = len(process.net_connections())
        open_ones = {name: [raw(running.url, data) for _ in range(each)] for name, data in kinds.items()}
        readers = [raw(running.url, large, buffer=2048) for _ in range(each)]  # they read nothing
        gone = [raw(running.url, asked) for _ in range(each)]
        for one in gone:
            one.close()
        assert http.post(CHAT, json=text(0)).status_code == 200
        for name, connections in open_ones.items():
            took = [ended(one) for one in connections]
            print(f"{name:14s} closed after at most {max(took):.1f} s")
        end = time.monotonic() + 60
        while (left := len(process.net_connections()) - before) > 1 and time.monotonic() < end:
            time.sleep(0.2)
        for one in readers:
            one.close()
        assert http.post(CHAT, json=text(1)).status_code == 200
        broken = [line for line in running.log if "Traceback" in line or " 500 " in line]
        print(f"connections left: {left} (one is ours); lines of the log with an error: {len(broken)}")
    assert left <= 1 and not broken


if __name__ == "__main__":
    app()
