"""The losses against plain, slow re-computations of the paper's formulas."""

from __future__ import annotations

import pytest
import torch

from janusflow.training.objective import autoregressive_loss, rectified_flow_loss


def test_autoregressive_loss_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 30, generator=generator), torch.randint(0, 30, (7,), generator=generator)
    slow = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        slow -= float(row[label] - torch.log(torch.exp(row).sum()))
    assert float(autoregressive_loss(logits, labels)) == pytest.approx(slow, rel=1e-5)
    assert float(autoregressive_loss(logits[:0], labels[:0])) == 0


def test_rectified_flow_loss_value_by_value() -> None:
    generator = torch.Generator().manual_seed(0)
    v, x1, x0 = (torch.randn(3, 4, 2, 2, generator=generator) for _ in range(3))
    slow = 0.0
    for picture in range(3):
        total = 0.0
        for value, data, noise in zip(v[picture].flatten(), x1[picture].flatten(), x0[picture].flatten(), strict=True):
            total += float(value - (data - noise)) ** 2
        slow += total / 16
    assert float(rectified_flow_loss(v, latents=x1, noise=x0)) == pytest.approx(slow, rel=1e-5)
