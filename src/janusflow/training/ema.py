"""EMA: the average of the weights over the steps, which a run exports (paper, section 4)."""

from __future__ import annotations

import torch
from torch import nn

from janusflow.training.distributed import local


class Ema:
    """theta_ema <- d theta_ema + (1 - d) theta after every step, in float32, sharded like the weights.

    Args:
        model: the model. Its trainable parameters are averaged; the others are kept as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Update the averages with the current parameters.

        Args:
            decay: d, from 0 (the average becomes the parameters) to 1 (the average does not change).
        """
        averages = [local(value) for value in self.values.values()]
        current = [local(p).float() for p in self.parameters.values()]
        torch._foreach_lerp_(averages, current, 1 - decay)
