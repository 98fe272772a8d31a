"""What `janusflow serve` carries: clients against a server of its own on a free loopback port, with the shipped model.

python benchmarks/serving.py scaling picture --clients 1,4,16     requests/s and latencies
python benchmarks/serving.py scaling text --clients 1,8,32
python benchmarks/serving.py both                                 gaps of text tokens while pictures saturate
python benchmarks/serving.py overload --minutes 15                twice the sustainable load: every answer is checked
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx2
import numpy as np
import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PROMPTS = ("a red circle above a blue square", "three stars", "a green cross", "two yellow triangles and a blue circle")
QUESTIONS = ("describe the picture.", "name three colors.", "what is a circle?")
PICTURES, CHAT = "/v1/images/generations", "/v1/chat/completions"
OPTIONS = ("--max-queue", "128")


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A running server's address; it must end with exit code 0."""
    command = [sys.executable, "-m", "janusflow", "serve", "--port", "0", *OPTIONS, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := re.search(r"listening on (http://\S+)", line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that the log does not fill the pipe
        try:
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0


def picture(number: int) -> dict[str, Any]:
    """A request for a picture: prompts, steps and guidance are mixed."""
    chance = random.Random(number)
    steps, guidance = chance.choice((8, 12, 20, 30)), chance.choice((1.0, 2.0, 4.0))
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"prompt": prompt, "seed": number, "num_inference_steps": steps, "guidance_scale": guidance}


def text(number: int) -> dict[str, Any]:
    """A request for an answer of 24 tokens; sampled, so that it does not end sooner."""
    message = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
    return {"model": "tiny", "messages": [message], "max_completion_tokens": 24, "temperature": 2.0, "seed": number}


KINDS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {"picture": (PICTURES, picture), "text": (CHAT, text)}


async def repeat(clients: int, seconds: float, request: Callable[[int], Awaitable[None]]) -> None:
    """Each client sends one request after the other."""
    end, numbers = time.monotonic() + seconds, iter(range(10**9))

    async def client() -> None:
        while time.monotonic() < end:
            await request(next(numbers))

    await asyncio.gather(*(client() for _ in range(clients)))


def percentiles(values: list[float]) -> str:
    cuts = np.percentile(values, [50, 95, 99])
    return "  ".join(f"p{name} {value:7.3f} s" for name, value in zip((50, 95, 99), cuts, strict=True))


@app.command()
def scaling(
    kind: Annotated[str, typer.Argument(help="picture or text.")],
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,2,4,8,16,32,64",
    seconds: Annotated[float, typer.Option(help="Of each number.")] = 30,
) -> None:
    """Throughput and latency against the number of clients."""
    path, make = KINDS[kind]

    async def measure(url: str, number: int) -> None:
        took: list[float] = []
        async with httpx2.AsyncClient(base_url=url, timeout=600) as http:

            async def one(index: int) -> None:
                began = time.monotonic()
                (await http.post(path, json=make(index))).raise_for_status()
                took.append(time.monotonic() - began)

            began = time.monotonic()
            await repeat(number, seconds, one)
            rate = len(took) / (time.monotonic() - began)
        print(f"{number:3d} clients  {rate:7.2f} {kind}s/s  {percentiles(took)}", flush=True)

    with server() as url:
        for number in map(int, clients.split(",")):
            asyncio.run(measure(url, number))


@app.command()
def both(
    wait: Annotated[float, typer.Option(help="--max-text-wait.")] = 0.2,
    share: Annotated[float, typer.Option(help="--picture-share.")] = 0.75,
    seconds: Annotated[float, typer.Option(help="Of each part.")] = 30,
) -> None:
    """Four streams of text while pictures saturate, against pictures by themselves."""
    gaps: list[float] = []

    async def pictures(url: str, streams: int) -> float:
        done: list[int] = []
        async with httpx2.AsyncClient(base_url=url, timeout=600) as http:

            async def generate(index: int) -> None:
                (await http.post(PICTURES, json=picture(index))).raise_for_status()
                done.append(index)

            async def listen(index: int) -> None:
                last = None
                async with http.stream("POST", CHAT, json={**text(index), "stream": True}) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                            now = time.monotonic()
                            gaps.extend([] if last is None else [now - last])
                            last = now

            await asyncio.gather(repeat(8, seconds, generate), repeat(streams, seconds, listen))
        return len(done) / seconds

    with server("--max-text-wait", str(wait), "--picture-share", str(share)) as url:
        solo, shared = asyncio.run(pictures(url, 0)), asyncio.run(pictures(url, 4))
    print(f"pictures/s: {solo:.2f} by themselves, {shared:.2f} with four streams ({shared / solo:.0%})")
    print(f"gaps of text tokens (setting {wait:g} s): {percentiles(gaps)}")


if __name__ == "__main__":
    app()
