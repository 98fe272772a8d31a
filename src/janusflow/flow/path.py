"""The straight path from noise to data: x_t = t x_1 + (1 - t) x_0, and how training samples t.

x_0 is noise, x_1 data, t of shape (B,) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Return t of shape (B,) as (B, 1, ..., 1), to broadcast with `like` of shape (B, ...)."""
    return t.view(-1, *[1] * (like.ndim - 1))


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """x_t = t x_1 + (1 - t) x_0. x0, x1: (B, ...), t: (B,).

    Example:
        >>> x0, x1 = torch.zeros(2, 3), torch.ones(2, 3)
        >>> interpolate(x0, x1, torch.tensor([0.25, 1.0]))[:, 0].tolist()
        [0.25, 1.0]
    """
    t = expand(t, x1)
    return t * x1 + (1 - t) * x0


def target_velocity(x0: Tensor, x1: Tensor) -> Tensor:
    """v = x_1 - x_0, the velocity of the straight path, the same at every t."""
    return x1 - x0


def standard_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Sample x_0 ~ N(0, I) of a shape, in float32 on the generator's device, whatever torch's defaults are."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)


def logit_normal(count: int, generator: torch.Generator, *, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Sample t = sigmoid(mean + scale n), n ~ N(0, 1), (count,) float32 in (0, 1); the paper has mean 0, scale 1."""
    return torch.sigmoid(mean + scale * standard_normal((count,), generator))
