"""The targets for one GPU in one run of about 8 minutes: JanusFlow-1.3B's size, random weights, bfloat16.

python benchmarks/gpu_engine.py --official CHECKOUT --python VENV/bin/python   # official code on the same card
python benchmarks/gpu_engine.py                                                # ours only
python benchmarks/gpu_engine.py --small --device cpu                           # to check that it runs

Each row is printed as soon as it is measured, so a run that is stopped keeps its rows. `--minutes` limits the whole
run: rows that would start later are listed as not measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from packing import captions, packed, padded
from scale import new, random_model, typical

from engine import HEADS, LLM, SMALL, SMALL_HEADS, Worker
from janusflow import JanusFlow
from janusflow.device import resolve_device
from janusflow.engine.text import Slots
from janusflow.model.attention import PACKED
from janusflow.model.kernels import compile_network, product
from janusflow.training.config import load_config
from janusflow.training.losses import LossConfig
from janusflow.training.objective import Objective
from janusflow.training.packing import fill
from training import gemm_rate

RECIPE = Path(__file__).parents[1] / "recipes" / "paper" / "stage2.yaml"
PROMPT = "a red circle above a blue square, on a white background, both of them large"
STEPS, TOKENS, PROMPT_TOKENS, WARM = 30, 128, 32, 3
Row = tuple[str, str, Callable[[], str]]  # name, target, measurement


def drawing(model: JanusFlow, count: int, repeats: int, device: torch.device, **settings: Any) -> float:
    """Return the seconds for a batch of pictures, including decoding."""
    asked = {"seed": 0, "batch_size": count, "output_type": "np", "progress": False, **settings}
    return typical(lambda: model.generate([PROMPT] * count, **asked), device, repeats)


@torch.inference_mode()
def answering(model: JanusFlow, count: int, tokens: int, repeats: int, device: torch.device) -> float:
    """Return tokens per second of several conversations after a prompt of 32 tokens, without the prefill."""
    llm, head = model.network.language_model, model.network.lm_head
    slots = Slots(llm, count, PROMPT_TOKENS + WARM + (repeats + 1) * tokens)
    states = slots.read([llm.embed_tokens(torch.arange(5, 5 + PROMPT_TOKENS, device=device))] * count)

    def say(length: int) -> None:
        nonlocal states
        for _ in range(length):
            states = slots.step(llm.embed_tokens(product(head, states).argmax(dim=-1)))

    say(WARM)
    return count * tokens / typical(partial(say, tokens), device, repeats)


def official_seconds(worker: Worker | None, task: str, repeats: int) -> float | None:
    """Return the official code's time, the least of several after one warm-up run."""
    if worker is None:
        return None
    return min([worker.run(task)["seconds"] for _ in range(repeats + 1)][1:])


def training_rows(
    model: JanusFlow, device: torch.device, *, small: bool, repeats: int, compiled: bool
) -> Iterator[Row]:
    """Yield model FLOPs utilization of packed rows, and packed against padded, with lengths of captions."""
    samples = captions(model, 16 if small else 256)
    tokens = sum(len(sample.tokens) for sample in samples)
    network = model.network.train().requires_grad_(True)
    objective = Objective(network, LossConfig(repa=0.0))
    rows, batches = fill(samples, 1024 if small else 4096), [samples[at : at + 16] for at in range(0, len(samples), 16)]
    precision = "float32" if device.type == "cpu" else "bfloat16"
    weights = sum(p.numel() for p in network.language_model.layers.parameters()) + network.lm_head.weight.numel()
    found: dict[str, float] = {}

    def run(kind: str) -> float:
        network.set_attn_implementation({"text_config": PACKED if kind == "packed" else "sdpa"})
        work = (
            partial(packed, objective, model, rows, device)
            if kind == "packed"
            else partial(padded, model, batches, device)
        )
        found[kind] = typical(work, device, repeats)
        network.zero_grad(set_to_none=True)
        return found[kind]

    def utilization() -> str:
        for layer in network.language_model.layers if compiled else ():
            layer.compile(dynamic=True)
        rate = 6 * weights * tokens / run("packed")  # without attention, which adds little at these lengths
        peak = gemm_rate(device, precision)
        return f"{rate / peak:.0%} of {peak / 1e12:,.2f} TFLOP/s, {tokens / found['packed']:,.0f} tokens/s"

    yield f"training{', compiled' if compiled else ''}, packed: model FLOPs utilization", ">= 45 %", utilization
    yield "training, packed against padded", ">= 1.5x", lambda: f"{run('padded') / found['packed']:.2f}x"


def engine_rows(
    model: JanusFlow, official: Worker | None, device: torch.device, *, small: bool, repeats: int
) -> Iterator[Row]:
    """Yield the rows of pictures and answers."""
    steps, tokens, many, conversations = (2, 4, 2, 3) if small else (STEPS, TOKENS, 16, 64)
    fewer = {"num_inference_steps": 2} if small else {}
    draw = partial(drawing, model, repeats=repeats, device=device)
    found: dict[str, float] = {}

    def exact() -> str:
        found["exact"] = draw(1, num_inference_steps=steps)
        return f"{found['exact']:.3f} s"

    def against() -> str:
        step = official_seconds(official, "step", repeats)
        if step is None or official is None:
            return "not measured: no official code was given"
        own = found["exact"] / steps
        return f"{own / step:.2f} (ours {own * 1e3:.1f} ms a step with its share of the VAE, theirs {step * 1e3:.1f})"

    yield "one picture, exact", "<= 0.25 s", exact
    yield "the same against the official loop, a step", "<= 0.35", against
    yield (
        f"pictures, batch {many}, exact",
        ">= 6 pictures/s",
        lambda: f"{many / draw(many, num_inference_steps=steps):.2f}/s",
    )
    yield (
        f"pictures, batch {many}, preset fast",
        ">= 20 pictures/s",
        lambda: f"{many / draw(many, preset='fast', **fewer):.2f}/s",
    )
    for count, target in ((1, ">= 500 tokens/s"), (conversations, ">= 8,000 tokens/s")):
        yield (
            f"answers, batch {count}",
            target,
            lambda count=count: f"{answering(model, count, tokens, repeats, device):,.0f} tokens/s",
        )


def main(
    official: Annotated[Path | None, typer.Option(help="Checkout of the official repository.")] = None,
    python: Annotated[str, typer.Option(help="Interpreter with transformers 4.49 and diffusers.")] = sys.executable,
    compile: Annotated[str, typer.Option(help="off, auto or on, for the network.")] = "auto",  # noqa: A002
    repeats: Annotated[int, typer.Option(help="Runs of each row; the median counts.")] = 3,
    minutes: Annotated[float, typer.Option(help="Minutes after which no further row starts.")] = 7.0,
    small: Annotated[bool, typer.Option("--small", help="The tiny network.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print a table in Markdown."""
    started, place = time.perf_counter(), resolve_device(device)
    worker = None
    if official:
        size = {**SMALL, **SMALL_HEADS} if small else {**LLM, **HEADS}
        given = {"size": size, "grid": 8 if small else 24, "dtype": "bfloat16", "threads": torch.get_num_threads()}
        given |= {"device": str(place), "kind": "official", "checkout": str(official.resolve())}
        worker = Worker(python, None, given)
    model = random_model(load_config(RECIPE, new(small)), place, small=small)
    if place.type != "cpu":
        model.network.to(torch.bfloat16)
        model.codec.vae.to(torch.bfloat16)
    model.network.eval()
    compile_network(model.network, compile)
    name = torch.cuda.get_device_name() if place.type == "cuda" else place.type
    print(
        f"{name}, PyTorch {torch.__version__}, compile={compile}\n\n| work | measured | target |\n| --- | --- | --- |"
    )
    options: dict[str, Any] = {"small": small, "repeats": repeats}
    for rows in (
        engine_rows(model, worker, place, **options),
        training_rows(model, place, **options, compiled=compile != "off"),
    ):
        for work, target, measure in rows:
            try:
                late = time.perf_counter() - started > 60 * minutes
                result = "not measured: out of time" if late else measure()
            except torch.OutOfMemoryError:
                result = "out of memory"
            print(f"| {work} | {result} | {target} |", flush=True)
    if worker is not None:
        worker.process.terminate()


if __name__ == "__main__":
    typer.run(main)
