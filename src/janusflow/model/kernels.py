"""The small operations between the LLM's matrix products, plain or compiled, and what to compile.

    compile_network(network, "auto")      # for inference; `run_layers` then uses what `kernels_of` returns

Matrix products and attention stay PyTorch's own kernels. The rest is compiled: each of these functions reads and writes
memory once instead of three to six times, and is one launch on a GPU. PyTorch keeps compiled code in a folder
(`TORCHINDUCTOR_CACHE_DIR`), so later processes load it.

Shapes: N tokens, D width, h heads of width d, F width of the feed-forward layer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from janusflow.arguments import quoted
from janusflow.device import CPU, execution_device, has_graphs
from janusflow.model.convnext import ConvNextBlock

MODES = ("off", "auto", "on")
FEW = range(3, 65)  # rows; measured in docs/log.md
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
LARGE = 500_000_000  # parameters from which one picture takes longer than compiling, half a minute on two cores


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in float32, rounded as in `LlamaRMSNorm`, with fewer passes over memory. (N, D) -> (N, D)."""
    wide = x.float()
    scale = torch.rsqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps))
    wide = wide * scale if wide is x else wide.mul_(scale)
    return wide.to(x.dtype).mul_(weight)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same, in a form that compiles well."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x cos + rotate_half(x) sin, with the sign of the half already in sin. x: (N, h, d), cos, sin: (N, 1, d)."""
    halves = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return (x * cos).addcmul_(halves.to(cos.dtype), sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin


def gate(gates: Tensor, up: Tensor) -> Tensor:
    """silu(gates) * up, written into `gates`. (N, F) each."""
    return F.silu(gates, inplace=True).mul_(up)


def _gate(gates: Tensor, up: Tensor) -> Tensor:
    return F.silu(gates) * up


@dataclass(frozen=True)
class Kernels:
    """`norm`, `rotate` and `gate`, in one of two forms, and whether steps are recorded as CUDA graphs."""

    norm: Callable[[Tensor, Tensor, float], Tensor] = norm
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate
    gate: Callable[[Tensor, Tensor], Tensor] = gate
    graphs: bool = False


PLAIN = Kernels()


@cache
def compiled(graphs: bool) -> Kernels:
    """Return the kernels, compiled at their first call; the same code serves any number of tokens."""
    made = [torch.compile(function, dynamic=True) for function in (_norm, _rotate, _gate)]
    return Kernels(made[0], made[1], made[2], graphs)


def product(layer: Any, x: Tensor) -> Tensor:
    """Apply a linear layer to a few rows, (N, D) -> (N, F), without gradients.

    In float32 on a CPU, `nn.Linear` reads the weights again for nearly every row, up to some tens of rows; oneDNN's
    kernel, which PyTorch also has, reads them once.
    """
    if type(layer) is nn.Linear and x.dtype == torch.float32 and len(x) in FEW and x.device == CPU and ONEDNN:
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")
    return layer(x)


def kernels_of(llm: nn.Module) -> Kernels:
    """Return the kernels that an LLM uses."""
    found: Kernels = llm.__dict__.get("kernels", PLAIN)
    return found


def compile_network(network: Any, mode: str) -> bool:
    """Compile the small operations of a network for inference; on CUDA, also record steps as graphs (`graphs.py`).

    Args:
        network: a network of any family.
        mode: "off" compiles nothing. "auto" compiles if a compiler exists and one picture takes longer than compiling,
            which is the case from `LARGE` parameters on. "on" always compiles.

    Returns:
        Whether it is compiled; compilation happens at the first call.

    Raises:
        ValueError: for another mode, or for "on" without a compiler.
    """
    device = execution_device(network)
    check_mode(mode, device)
    large = sum(parameter.numel() for parameter in network.parameters()) >= LARGE
    if mode == "off" or (mode == "auto" and (not large or missing_compiler(device))):
        return False
    network.get_decoder().__dict__["kernels"] = compiled(has_graphs(device))
    for part in network.modules():
        if isinstance(part, ConvNextBlock):
            part.compile(dynamic=True)
    return True


def check_mode(mode: str, device: torch.device) -> None:
    """Check a mode of `compile_network` before weights are read.

    Raises:
        ValueError: for an unknown mode, or for "on" without a compiler.
    """
    if mode not in MODES:
        raise ValueError(f"compile is {quoted(mode)}; expected {', '.join(MODES)}")
    if mode == "on" and (missing := missing_compiler(device)):
        raise ValueError(f"compile is 'on', and {missing}; install it, or give compile='auto'")


def missing_compiler(device: torch.device) -> str | None:
    """Return what PyTorch needs to compile for a device but does not find; None if nothing is missing."""
    if device.type != "cpu":
        return None if find_spec("triton") else "Triton was not found"
    name = os.environ.get("CXX", "g++")
    return None if shutil.which(name) or shutil.which("clang++") else f"no C++ compiler was found ({name})"
