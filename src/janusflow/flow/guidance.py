"""Classifier-free guidance: combines velocities with and without the prompt into one velocity function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""v(x: (B, C, H, W), t: (B,)) -> (B, C, H, W)."""

ROUNDING = 1e-6  # tolerance for t in float32 at the ends of the interval


def guide(
    conditional: Velocity, both: Velocity, *, scale: float, interval: tuple[float, float] = (0.0, 1.0)
) -> Velocity:
    """v(x, t) = w v(x, t | prompt) + (1 - w) v(x, t | empty) for t in the interval, v(x, t | prompt) elsewhere.

    Args:
        conditional: v(x, t | prompt) for B rows.
        both: the same for 2B rows, where the second half sees the empty prompt.
        scale: w >= 1. At 1 the empty prompt is never run.
        interval: the closed range of t in which guidance acts.

    Returns:
        The velocity for rows of one time, as solvers ask for it: the first row's decides whether guidance acts.

    Raises:
        ValueError: for a scale below 1 or not finite, or an interval outside [0, 1].

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1)
        >>> velocity = guide(lambda x, t: x + 1, lambda x, t: torch.tensor([[1.0], [0.0]]), scale=3.0)
        >>> velocity(x, torch.zeros(1))
        tensor([[3.]])
    """
    check_guidance(scale, interval)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if not guided_at(float(t[0]), scale, interval):
            return conditional(x, t)
        with_prompt, without = both(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        return combine(with_prompt, without, scale)

    return guided


def check_guidance(scale: float, interval: tuple[float, float]) -> None:
    """Refuse settings of guidance that `guide` cannot use.

    Raises:
        ValueError: for a scale below 1 or not finite, or an interval outside [0, 1].
    """
    if not math.isfinite(scale) or scale < 1:
        raise ValueError(f"guidance_scale is {scale}; expected finite numbers from 1 (no guidance) upwards")
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance_interval is {interval}; expected 0 <= from <= to <= 1")


def guided_at(t: float, scale: float, interval: tuple[float, float]) -> bool:
    """Return whether guidance acts at t; if not, the unconditional velocity is not needed."""
    return scale != 1 and interval[0] - ROUNDING <= t <= interval[1] + ROUNDING


def combine(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """w v(x, t | prompt) + (1 - w) v(x, t | empty)."""
    return scale * conditional - (scale - 1) * unconditional
