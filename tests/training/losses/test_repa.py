"""REPA against a plain re-computation, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch

from janusflow import JanusFlow
from janusflow.training.losses.repa import RepaHead, repa_loss
from janusflow.training.objective import LossConfig, Objective


def test_repa_loss_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(3, 4, 5, generator=generator)
    features = torch.randn(3, 4, 5, generator=generator, requires_grad=True)
    slow = 0.0
    for picture in range(3):
        total = 0.0
        for token in range(4):
            a, b = projected[picture, token].tolist(), features[picture, token].tolist()
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            total += dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
        slow -= total / 4
    projected.requires_grad_(True)
    loss = repa_loss(projected, features)
    assert float(loss.detach()) == pytest.approx(slow, rel=1e-5)
    loss.backward()
    assert features.grad is None
    assert projected.grad is not None


def test_grids_and_blocks_must_fit(small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="token by token"):
        repa_loss(torch.zeros(1, 4, 5), torch.zeros(1, 9, 5))
    with pytest.raises(ValueError, match="repa_block is 4; the LLM has blocks 1 to 3"):
        Objective(small_model.network, LossConfig(repa_block=4))
    head = RepaHead(small_model.network.config)
    assert head(torch.zeros(2, 16, 64)).shape == (2, 16, 48)
    assert sum(isinstance(module, torch.nn.Linear) for module in head) == 3
