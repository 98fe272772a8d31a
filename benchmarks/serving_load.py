"""Shared by the benchmarks of `janusflow serve`: a server in a separate process, requests, and clients."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

PROMPTS = ("a red circle above a blue square", "three stars", "a green cross", "two yellow triangles and a blue circle")
QUESTIONS = ("describe the picture.", "name three colors.", "what is a circle?")
PICTURES, CHAT = "/v1/images/generations", "/v1/chat/completions"
TOKENS = 24  # in a long answer


@dataclass
class Server:
    """A running server.

    Attributes:
        url: its address.
        process: its process.
        log: its lines so far.
    """

    url: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    def stop(self, seconds: float = 120) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def server(*options: str) -> Iterator[Server]:
    """Start a server on a free loopback port; it must end with exit code 0."""
    command = [sys.executable, "-m", "janusflow", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := re.search(r"listening on (http://\S+)", line)))
        running = Server(url, process)
        threading.Thread(target=running.log.extend, args=(process.stderr,), daemon=True).start()
        try:
            yield running
        finally:
            if process.poll() is None:
                running.stop()
        assert process.returncode == 0, running.log[-5:]


def picture(number: int) -> dict[str, Any]:
    """Return a request for a picture: prompts, steps (8 to 30) and guidance are mixed."""
    chance = random.Random(number)
    steps, guidance = chance.choice((8, 12, 20, 30)), chance.choice((1.0, 2.0, 4.0))
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"prompt": prompt, "seed": number, "num_inference_steps": steps, "guidance_scale": guidance}


def text(number: int) -> dict[str, Any]:
    """Return a request for an answer of 24 tokens; sampled, so that it seldom ends sooner."""
    message = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
    return {"model": "tiny", "messages": [message], "max_completion_tokens": TOKENS, "temperature": 2.0, "seed": number}


def shown(number: int) -> Image.Image:
    """Return a small picture, a different one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def word(number: int) -> dict[str, Any]:
    """Return a request for one word about a picture that was not seen before."""
    file = io.BytesIO()
    shown(number).save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what color is the circle?"}]
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_completion_tokens": 1}


KINDS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "picture": (PICTURES, picture),
    "text": (CHAT, text),
    "word": (CHAT, word),
}


async def repeat(clients: int, seconds: float, request: Callable[[int], Awaitable[None]]) -> None:
    """Let each client send one request after the other."""
    end, numbers = time.monotonic() + seconds, iter(range(10**9))

    async def client() -> None:
        while time.monotonic() < end:
            await request(next(numbers))

    await asyncio.gather(*(client() for _ in range(clients)))


def percentiles(values: list[float]) -> str:
    """Return the median and the slow percentiles."""
    cuts = np.percentile(values, [50, 95, 99])
    return "  ".join(f"p{name} {value:7.3f} s" for name, value in zip((50, 95, 99), cuts, strict=True))
