"""Matrix products of one layer of the 1.3B size with PyTorch's CPU kernels: milliseconds of processor time, one thread.

python benchmarks/products.py
python benchmarks/products.py --rows 1 --rows 577 --repeats 5
python benchmarks/products.py --small-operations --rows 1154    # operations between the products, plain and compiled

Three weights of 2048 x 5632 take turns, so that none stays in the cache. Medians; the kernels are interleaved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from janusflow.checkpoint.quantized_linear import Int4Linear, Int8Linear
from janusflow.model.kernels import PLAIN, compiled

INPUTS, OUTPUTS, COUNT = 2048, 5632, 3
ROWS = (1, 2, 4, 8, 16, 32, 577, 592, 1154)
Product = Callable[[Tensor], object]


def kernels(layers: list[nn.Linear], rows: int) -> dict[str, Product]:
    """Return functions, by name, that multiply (rows, 2048) by all weights."""
    weights = [layer.weight.detach() for layer in layers]
    turned = [weight.t().contiguous() for weight in weights]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight, rows) for weight in weights]
    stacked = torch.cat(weights)
    eight, four = [Int8Linear(layer) for layer in layers], [Int4Linear(layer) for layer in layers]
    scales = [weight.abs().amax(dim=1) / 127 for weight in weights]
    integers = [(w / s[:, None]).round().to(torch.int8) for w, s in zip(weights, scales, strict=True)]
    onednn = torch.ops.mkldnn._linear_pointwise
    found: dict[str, Product] = {
        "nn.Linear": lambda x: [layer(x) for layer in layers],
        "one of all weights": lambda x: x @ stacked.t(),
        "weights turned": lambda x: [x @ weight for weight in turned],
        "oneDNN": lambda x: [onednn(x, weight, None, "none", [], "") for weight in weights],
        "oneDNN, packed": lambda x: [onednn(x, weight, None, "none", [], "") for weight in packed],
        "Int8Linear": lambda x: [layer(x) for layer in eight],
    }
    if rows <= max(ROWS[:6]):  # slow for more rows
        found["Int4Linear"] = lambda x: [layer(x) for layer in four]
        found["_weight_int8pack_mm, bfloat16"] = lambda x: [
            torch.ops.aten._weight_int8pack_mm(x.bfloat16(), weight, scale.bfloat16())
            for weight, scale in zip(integers, scales, strict=True)
        ]
    if rows <= 4:
        found["_int_mm"] = lambda x: [torch._int_mm(x.to(torch.int8), weight.t()) for weight in integers]
    return found


def operations(rows: int) -> dict[str, Callable[[], object]]:
    """Return the operations of `model/kernels.py`, by name, on one layer's sizes, plain and compiled."""
    x, weight = torch.randn(rows, INPUTS), torch.randn(INPUTS)
    heads, cos, sin = torch.randn(rows, 16, 128), torch.randn(rows, 1, 128), torch.randn(rows, 1, 128)
    gates, up = torch.randn(rows, OUTPUTS), torch.randn(rows, OUTPUTS)
    found: dict[str, Callable[[], object]] = {}
    for name, made in (("plain", PLAIN), ("compiled", compiled(False))):
        found[f"norm, {name}"] = partial(made.norm, x, weight, 1e-6)
        found[f"rotate, {name}"] = partial(made.rotate, heads, cos, sin)
        found[f"gate, {name}"] = partial(made.gate, gates, up)
    return found


def medians(choices: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return seconds of processor time of each, in turn, after one warm-up call."""
    times: dict[str, list[float]] = {name: [] for name in choices}
    for repeat in range(repeats + 1):
        for name, work in choices.items():
            started = time.thread_time()
            work()
            if repeat:
                times[name].append(time.thread_time() - started)
    return {name: median(values) for name, values in times.items()}


@torch.inference_mode()
def main(
    rows: Annotated[list[int] | None, typer.Option(help="Rows of the input; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(help="Calls of each, after one warm-up call.")] = 3,
    small_operations: Annotated[bool, typer.Option("--small-operations", help="Other operations instead.")] = False,
) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(1)
    if small_operations:
        print("| rows | operation | ms |\n| ---: | --- | ---: |")
        for count in rows or (592, 1154):
            for name, took in medians(operations(count), repeats).items():
                print(f"| {count} | {name} | {took * 1e3:.2f} |", flush=True)
        return
    layers = [nn.Linear(INPUTS, OUTPUTS, bias=False) for _ in range(COUNT)]
    print("| rows | kernel | ms | of nn.Linear | GFLOP/s |\n| ---: | --- | ---: | ---: | ---: |")
    for count in rows or ROWS:
        x = torch.randn(count, INPUTS)
        found = medians({name: partial(work, x) for name, work in kernels(layers, count).items()}, repeats)
        for name, took in found.items():
            rate = 2 * count * INPUTS * OUTPUTS * COUNT / took / 1e9
            print(f"| {count} | {name} | {took * 1e3:.1f} | {took / found['nn.Linear']:.2f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
