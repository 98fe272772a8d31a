"""Losses that several parts share."""

from __future__ import annotations

from torch import Tensor


def reconstruction(error: Tensor, *, edges: float = 1.0) -> dict[str, Tensor]:
    """Return the reconstruction loss |d| + 2 d^2 + e |grad d| of an error d, and its terms.

    Args:
        error: d, the difference between decoded and given pictures, (B, 3, H, W).
        edges: e, the weight of the differences between neighboring pixels of d.

    Returns:
        "loss", and the means "absolute", "squared" and "edges" of its terms.

    Example:
        >>> import torch
        >>> reconstruction(torch.full((1, 3, 4, 4), 0.5))["loss"].item()
        1.0
    """
    absolute, squared = error.abs().mean(), error.square().mean()
    gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    loss = absolute + 2 * squared + edges * gradient
    return {"loss": loss, "absolute": absolute, "squared": squared, "edges": gradient}
