"""Matrix products of one layer of the 1.3B size by PyTorch's CPU kernels: milliseconds of processor time, one thread.

python benchmarks/products.py
python benchmarks/products.py --rows 1 --rows 577 --repeats 5

Three weights of 2048 x 5632 in turn, so that none stays in the cache; medians over all kernels interleaved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from janusflow.checkpoint.quantized_linear import Int4Linear, Int8Linear

INPUTS, OUTPUTS, COUNT = 2048, 5632, 3
ROWS = (1, 2, 4, 8, 16, 32, 577, 592, 1154)
Product = Callable[[Tensor], object]


def kernels(layers: list[nn.Linear], rows: int) -> dict[str, Product]:
    """By name, a function that multiplies (rows, 2048) by all weights."""
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
    if rows <= max(ROWS[:6]):  # slow for more
        found["Int4Linear"] = lambda x: [layer(x) for layer in four]
        found["_weight_int8pack_mm, bfloat16"] = lambda x: [
            torch.ops.aten._weight_int8pack_mm(x.bfloat16(), weight, scale.bfloat16())
            for weight, scale in zip(integers, scales, strict=True)
        ]
    if rows <= 4:
        found["_int_mm"] = lambda x: [torch._int_mm(x.to(torch.int8), weight.t()) for weight in integers]
    return found


@torch.inference_mode()
def main(
    rows: Annotated[list[int] | None, typer.Option(help="Of the input; again for several.")] = None,
    repeats: Annotated[int, typer.Option(help="Of each, after one to warm up.")] = 3,
) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(1)
    layers = [nn.Linear(INPUTS, OUTPUTS, bias=False) for _ in range(COUNT)]
    print("| rows | kernel | ms | of nn.Linear | GFLOP/s |\n| ---: | --- | ---: | ---: | ---: |")
    for count in rows or ROWS:
        x, times = torch.randn(count, INPUTS), dict[str, list[float]]()
        choices = kernels(layers, count)
        for repeat in range(repeats + 1):
            for name, multiply in choices.items():
                started = time.thread_time()
                multiply(x)
                if repeat:
                    times.setdefault(name, []).append(time.thread_time() - started)
        plain = median(times["nn.Linear"])
        for name, values in times.items():
            took = median(values)
            rate = 2 * count * INPUTS * OUTPUTS * COUNT / took / 1e9
            print(f"| {count} | {name} | {took * 1e3:.1f} | {took / plain:.2f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
