"""Muon in the precision that the device multiplies fast. `optimizers.py` uses it for the matrices of the blocks.

torch.optim.Muon always orthogonalizes in bfloat16, which takes about forty times as long as float32 on a CPU without
bfloat16 units (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from janusflow.device import DTYPES, resolve_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of a x + b x^3 + c x^5 (Jordan et al. 2024): steep at 0, near 1 around 1
ITERATIONS = 5
STACKED = 2**24  # most values in matrices that are orthogonalized together


class Muon(Optimizer):
    """M <- m M + (1 - m) G; W <- W - lr * 0.2 sqrt(max(rows, columns)) * U V^T of m M + (1 - m) G = U S V^T.

    Jordan et al. 2024 with Nesterov momentum. The update is scaled to the size of AdamW's (Liu et al., arXiv
    2502.16982), so that the same learning rate works for both.

    Args:
        params: matrices, and convolution kernels with one row per output; they may be sharded (DTensor).
        momentum: m.
        weight_decay: W shrinks by lr * weight_decay, decoupled.
        precision: precision of the orthogonalization, "auto", "bfloat16" or "float32".
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
        self.precision = precision  # of this run, not of the checkpoint that it continues from

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(p.shape), []).append(p)
            for shape, matrices in alike.items():
                count = max(1, STACKED // math.prod(shape))
                for first in range(0, len(matrices), count):
                    self._update(matrices[first : first + count], group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape, orthogonalized together: on a GPU, launching small products is slow."""
        shape, momentum = matrices[0].shape, group["momentum"]
        gradients = [p.grad for p in matrices if p.grad is not None]
        for p, gradient in zip(matrices, gradients, strict=True):
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(gradient)
        averages = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, averages, momentum)
        dtype = DTYPES[resolve_precision(self.precision, matrices[0].device)]
        stacked = torch.stack([one if one.ndim == 2 else one.flatten(1) for one in ahead]).to(dtype)
        directions = orthogonal(stacked).to(matrices[0].dtype).view(len(matrices), *shape)
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        size = max(shape[0], math.prod(shape[1:]))
        torch._foreach_add_(matrices, list(directions.unbind()), alpha=-group["lr"] * 0.2 * size**0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximate U V^T of matrices U S V^T by Newton-Schulz; all but tiny singular values end up between 0.7 and 1.2.

    Args:
        matrices: (..., rows, columns) in any floating dtype, which all products use.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
