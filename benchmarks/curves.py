"""Time and memory of a picture and an answer against batch, prompt, picture size, steps and answer length, for our code
and the official code in turn. Writes docs/curves.png and prints a table.

python benchmarks/curves.py --official CHECKOUT --python PYTHON     # PYTHON has transformers 4.49 and diffusers
python benchmarks/curves.py --small --out /tmp                      # to check that it runs

Random weights of JanusFlow-1.3B's width with 2 of its 24 layers, so that it takes minutes. g_enc and g_dec take a
fifteenth of a step with 24 layers, and half of a step here. Guided steps, no VAE. Memory is the peak above the start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import HEADS, LLM, SMALL, SMALL_HEADS, Worker, start

DOCS = Path(__file__).parents[1] / "docs"
CURVES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "pictures in a batch": ("picture batch={}", "pictures", (1, 2, 4, 8)),
    "length of the prompt": ("picture prompt={}", "tokens", (24, 150, 300, 600)),
    "size of the picture": ("picture side={}", "pixels", (8, 12, 16, 24)),  # image tokens each way
    "steps": ("picture steps={}", "steps", (1, 2, 4, 8)),
    "length of the answer": ("answer prompt=100 tokens={}", "tokens", (8, 16, 32, 64)),
}
PIXELS = 16  # per image token, each way
Measured = dict[str, dict[str, list[dict[str, float]]]]


def measure(workers: dict[str, Worker], repeats: int) -> Measured:
    """Return the quickest run at each value, by curve and process."""
    found: Measured = {}
    for name, (task, _, values) in CURVES.items():
        found[name] = {process: [] for process in workers}
        for worker in workers.values():
            worker.run(task.format(values[0]))  # to warm up
        for value in values:
            runs: dict[str, list[dict[str, float]]] = {process: [] for process in workers}
            for _ in range(repeats):
                for process, worker in workers.items():
                    runs[process].append(worker.run(task.format(value)))
            for process, measured in runs.items():
                found[name][process].append(min(measured, key=lambda run: run["seconds"]))
    return found


def shown(name: str) -> list[int]:
    """Return the values of a curve as its axis shows them."""
    return [value * PIXELS if name == "size of the picture" else value for value in CURVES[name][2]]


def table(found: Measured) -> str:
    """Return the table in Markdown."""
    processes = list(next(iter(found.values())))
    head = ["cost against", "value", *(f"{name}, s" for name in processes), *(f"{name}, MiB" for name in processes)]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: |" + " ---: |" * (2 * len(processes))]
    for name, by_process in found.items():
        for place, value in enumerate(shown(name)):
            times = [f"{by_process[process][place]['seconds']:.3g}" for process in processes]
            memory = [f"{by_process[process][place]['memory'] / 2**20:.0f}" for process in processes]
            lines.append(f"| {name} | {value} | " + " | ".join(times + memory) + " |")
    return "\n".join(lines)


def draw(found: Measured, title: str, file: Path) -> None:
    """Draw time above and memory below, one column per curve."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(14, 5.5), layout="constrained")
    grid = figure.subplots(2, len(found), sharex="col")
    scales = {"seconds": 1.0, "memory": 2.0**20}
    for column, (name, by_process) in enumerate(found.items()):
        for row, (kind, scale) in enumerate(scales.items()):
            axes = grid[row][column]
            for (process, runs), mark in zip(by_process.items(), "os", strict=False):
                axes.plot(shown(name), [run[kind] / scale for run in runs], marker=mark, label=process)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        grid[0][column].set_title(name, fontsize=10)
        grid[1][column].set_xlabel(CURVES[name][1])
        grid[1][column].set_xticks(shown(name))
    grid[0][0].set_ylabel("seconds")
    grid[1][0].set_ylabel("peak above weights, MiB")
    grid[0][0].legend()
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def main(
    official: Annotated[Path | None, typer.Option(help="Checkout of the official repository.")] = None,
    python: Annotated[str, typer.Option(help="Interpreter for the official code.")] = sys.executable,
    repeats: Annotated[int, typer.Option(help="Runs of each; the quickest counts.")] = 1,
    dtype: str = "float32",
    threads: int = os.cpu_count() or 1,
    layers: Annotated[int, typer.Option(help="Layers of the LLM.")] = 2,
    small: Annotated[bool, typer.Option(help="A network of two narrow layers.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for curves.png.")] = DOCS,
) -> None:
    """Measure, draw, and print a table."""
    size = {**SMALL, **SMALL_HEADS} if small else {**LLM, **HEADS, "num_hidden_layers": layers}
    common: dict[str, Any] = {"size": size, "grid": 8 if small else 24, "dtype": dtype, "threads": threads}
    workers = start(common, None, "off", official, python)
    names = {"ours": "ours", "other": "official"}
    found = measure({names[name]: worker for name, worker in workers.items()}, repeats)
    print(table(found))
    what = "two narrow layers" if small else f"width of JanusFlow-1.3B, {layers} of 24 layers"
    draw(found, f"{what}, {dtype}, threads: {threads}, random weights", out / "curves.png")
    for worker in workers.values():
        worker.process.terminate()


if __name__ == "__main__":
    typer.run(main)
