"""Muon in the precision that the device multiplies fast: what `optimizers.py` gives the matrices of the blocks.

torch.optim.Muon always orthogonalizes in bfloat16, which takes some forty times as long as float32 on a CPU without
units for it (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from janusflow.device import DTYPES, resolve_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of a x + b x^3 + c x^5 (Jordan et al. 2024): steep at 0, near 1 around 1
ITERATIONS = 5


class Muon(Optimizer):
    """M <- m M + (1 - m) G; W <- W - lr * 0.2 sqrt(max(rows, columns)) * U V^T of m M + (1 - m) G = U S V^T.

    Jordan et al. 2024 with Nesterov's momentum, its update scaled to the size of AdamW's (Liu et al., arXiv
    2502.16982), so that one learning rate serves both.

    Args:
        params: matrices, and kernels of convolutions with a row for each output; sharded matrices are gathered.
        lr: learning rate.
        momentum: m.
        weight_decay: W shrinks by lr * weight_decay, decoupled.
        precision: of the orthogonalization: "auto", "bfloat16" or "float32".
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: str = "auto",
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision  # of this run, not of a checkpoint that it goes on from

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                average = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                dtype = DTYPES[resolve_precision(self.precision, p.device)]
                gradient = p.grad.lerp(average, momentum)
                matrix = gradient if p.ndim == 2 else gradient.flatten(1)
                direction = orthogonal(matrix.to(dtype)).to(p.dtype).view_as(p)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T, by Newton-Schulz: all but tiny singular values come out between 0.7 and 1.2.

    Args:
        matrix: (rows, columns) in any floating dtype, which is that of all products.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
