"""L_RF: the velocity from noise to the latents of pictures (paper, section 3.3).

Shapes: M pictures, (C, H, W) a latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.flow import target_velocity
from janusflow.training.losses.term import Forward, Term


def rectified_flow_loss(velocity: Tensor, *, latents: Tensor, noise: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_RF = sum over pictures of the mean over latent values of (v(x_t, t | prompt) - (x_1 - x_0))^2.

    Args:
        velocity: v(x_t, t | prompt), (M, C, H, W), at x_t = t x_1 + (1 - t) x_0.
        latents: x_1.
        noise: x_0.
        weights: (M,) weights of the pictures, by default all 1.

    Returns:
        A scalar, float32; divide by the number of pictures.
    """
    each = (velocity.float() - target_velocity(noise, latents)).square().flatten(1).mean(dim=1)
    return each.sum() if weights is None else (weights * each).sum()


class RectifiedFlow(Term):
    """The loss of pictures to generate."""

    name, title, optional = "flow", "L_RF", False

    def sum(self, seen: Forward) -> Tensor | None:
        if seen.latents is None:
            return None
        row = seen.row
        assert row.noise is not None and seen.output.velocity is not None
        weights = None if row.anchored is None else torch.where(row.anchored, seen.config.anchor, 1.0)
        return rectified_flow_loss(seen.output.velocity, latents=seen.latents, noise=row.noise, weights=weights)

    def count(self, samples: Sequence[Sample]) -> float:
        return float(sum(sample.drawn is not None for sample in samples))


TERM = RectifiedFlow()
