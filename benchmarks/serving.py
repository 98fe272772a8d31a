"""Rates of `janusflow serve`: clients against a separate server on a loopback port, with the shipped model.

python benchmarks/serving.py pictures                16 clients, against one job at a time and `generate` in a loop
python benchmarks/serving.py texts                   32 clients, against `ask` in a loop
python benchmarks/serving.py both                    gaps of text tokens while pictures saturate
python benchmarks/serving.py previews                what a preview every fifth step costs
python benchmarks/serving.py scaling text            requests/s and latencies from 1 to 64 clients
python benchmarks/serving.py figure picture.txt text.txt docs/serving.png    from the output of `scaling`

Faults and overload are in serving_faults.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from serving_load import CHAT, KINDS, PICTURES, TOKENS, percentiles, picture, repeat, server, shown, text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Seconds = Annotated[float, typer.Option(help="Seconds for each part.")]
Dtype = Annotated[str, typer.Option(help="Dtype of the weights.")]


async def measure(url: str, kind: str, clients: int, seconds: float, **more: Any) -> tuple[float, list[float]]:
    """Return requests/s of some clients, and how long each request took."""
    path, make = KINDS[kind]
    took: list[float] = []
    async with httpx2.AsyncClient(base_url=url, timeout=600) as http:

        async def one(index: int) -> None:
            began = time.monotonic()
            (await http.post(path, json={**make(index), **more})).raise_for_status()
            took.append(time.monotonic() - began)

        await repeat(2, 2, one)  # warm-up
        took.clear()
        began = time.monotonic()
        await repeat(clients, seconds, one)
        return len(took) / (time.monotonic() - began), took


def loop(seconds: float, call: Callable[[int], object]) -> float:
    """Return calls/s of a function that is called repeatedly."""
    for index in range(3):
        call(index)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        call(count)
        count += 1
    return count / (time.monotonic() - began)


@app.command()
def pictures(clients: int = 16, seconds: Seconds = 30, dtype: Dtype = "float32") -> None:
    """Measure pictures/s of a server with many at a time, of one with one at a time, and of `generate` in a loop."""
    from janusflow import JanusFlow

    rates = []
    for most in (clients, 1):
        with server("--max-pictures", str(most), "--dtype", dtype) as running:
            rates.append(asyncio.run(measure(running.url, "picture", clients, seconds))[0])
    model = JanusFlow.from_pretrained("tiny", dtype=dtype)

    def generate(index: int) -> None:
        body = picture(index)
        model.generate(body.pop("prompt"), progress=False, **body)

    rates.append(loop(seconds, generate))
    print(f"{clients} clients, {dtype}: {rates[0]:.2f} pictures/s")
    print(f"one job at a time: {rates[1]:.2f} pictures/s ({rates[0] / rates[1]:.2f}x)")
    print(f"generate in a loop: {rates[2]:.2f} pictures/s ({rates[0] / rates[2]:.2f}x)")


@app.command()
def texts(clients: int = 32, seconds: Seconds = 20, dtype: Dtype = "float32") -> None:
    """Measure answers/s of a server against `ask` in a loop: 24 tokens, and one word about a new picture."""
    from janusflow import JanusFlow

    found = {}
    with server("--dtype", dtype) as running:
        for kind in ("text", "word"):
            found[kind] = asyncio.run(measure(running.url, kind, clients, seconds))[0]
    model = JanusFlow.from_pretrained("tiny", dtype=dtype)

    def ask(index: int) -> None:
        question = text(index)["messages"][0]["content"]
        model.ask(question, max_new_tokens=TOKENS, do_sample=True, temperature=2.0, seed=index)

    def say(index: int) -> None:
        model.ask("what color is the circle?", shown(index), max_new_tokens=1)

    for kind, call in (("text", ask), ("word", say)):
        rate = loop(seconds, call)
        print(f"{kind}: {found[kind]:.1f} answers/s with {clients} clients, {rate:.1f} in a loop, ", end="")
        print(f"{found[kind] / rate:.2f}x")


@app.command()
def both(
    wait: Annotated[float, typer.Option(help="--max-text-wait.")] = 0.2,
    share: Annotated[float, typer.Option(help="--picture-share.")] = 0.75,
    seconds: Seconds = 30,
) -> None:
    """Run four streams of text while pictures saturate the server, against pictures by themselves."""
    gaps: list[float] = []

    async def measured(url: str, streams: int) -> float:
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

            began = time.monotonic()
            await asyncio.gather(repeat(8, seconds, generate), repeat(streams, seconds, listen))
            return len(done) / (time.monotonic() - began)

    with server("--max-text-wait", str(wait), "--picture-share", str(share)) as running:
        asyncio.run(measured(running.url, 0) if seconds < 5 else measure(running.url, "picture", 8, 3))  # warm-up
        solo, shared = asyncio.run(measured(running.url, 0)), asyncio.run(measured(running.url, 4))
    print(f"pictures/s: {solo:.2f} by themselves, {shared:.2f} with four streams ({shared / solo:.0%})")
    print(f"gaps of text tokens (setting {wait:g} s): {percentiles(gaps)}")


@app.command()
def previews(seconds: Seconds = 30, clients: int = 4) -> None:
    """Stream pictures of 20 steps, without previews and with one every fifth step, in turn."""
    rates: dict[int, list[float]] = {0: [], 3: []}
    with server() as running:
        for _ in range(2):
            for number, found in rates.items():
                more = {"num_inference_steps": 20, "guidance_scale": 2.0, "stream": True, "partial_images": number}
                found.append(asyncio.run(measure(running.url, "picture", clients, seconds / 2, **more))[0])
    without, with_previews = (sum(found) / 2 for found in rates.values())
    print(f"pictures/s: {without:.2f} without previews, {with_previews:.2f} with three; ", end="")
    print(f"they cost {without / with_previews - 1:.1%}")


@app.command()
def scaling(
    kind: Annotated[str, typer.Argument(help="picture, text or word.")],
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,2,4,8,16,32,64",
    seconds: Seconds = 30,
) -> None:
    """Measure throughput and latency against the number of clients."""
    with server("--max-queue", "128") as running:
        for number in map(int, clients.split(",")):
            rate, took = asyncio.run(measure(running.url, kind, number, seconds))
            print(f"{number:3d} clients  {rate:7.2f} {kind}s/s  {percentiles(took)}", flush=True)


@app.command()
def figure(pictures: Path, texts: Path, out: Path) -> None:
    """Plot what `scaling` printed for both kinds."""
    from matplotlib import pyplot as plt

    line = re.compile(r" *(\d+) clients +([\d.]+) \w+/s  p50 +([\d.]+) s  p95 +([\d.]+) s  p99 +([\d.]+) s")
    shape, axes = plt.subplots(2, 2, figsize=(8, 6), sharex=True, layout="constrained")
    for column, (title, file) in enumerate((("pictures", pictures), ("texts", texts))):
        rows = [[float(value) for value in found.groups()] for found in map(line.match, file.open()) if found]
        clients, rates, *latencies = zip(*rows, strict=True)
        axes[0, column].plot(clients, rates, "o-")
        axes[0, column].set(title=title, ylabel=f"{title}/s", ylim=(0, None), xscale="log")
        for name, values in zip(("p50", "p95", "p99"), latencies, strict=True):
            axes[1, column].plot(clients, values, "o-", label=name)
        axes[1, column].set(
            xlabel="clients", ylabel="s until the answer", xticks=clients, xticklabels=map(int, clients)
        )
        axes[1, column].set(yscale="log")
        axes[1, column].minorticks_off()
    axes[1, 0].legend()
    shape.savefig(out, dpi=110)


if __name__ == "__main__":
    app()
