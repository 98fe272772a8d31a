"""The straight path, its velocity, and the distribution of t."""

from __future__ import annotations

import pytest
import torch

from janusflow.flow import integrate, interpolate, logit_normal, target_velocity, uniform_times


def test_ends_and_slope_of_the_path() -> None:
    x0, x1 = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    torch.testing.assert_close(interpolate(x0, x1, torch.zeros(3)), x0)
    torch.testing.assert_close(interpolate(x0, x1, torch.ones(3)), x1)
    t = torch.tensor([0.2, 0.5, 0.9])
    slope = (interpolate(x0, x1, t + 0.01) - interpolate(x0, x1, t)) / 0.01
    torch.testing.assert_close(slope, target_velocity(x0, x1), atol=1e-4, rtol=1e-4)


def test_integrating_the_target_velocity_arrives_at_the_data() -> None:
    x0, x1 = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(integrate(lambda x, t: target_velocity(x0, x1), x0, uniform_times(4)), x1)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (-0.8, 0.5)])
def test_logit_normal_has_the_wanted_mean_and_scale(mean: float, scale: float) -> None:
    t = logit_normal(200_000, torch.Generator().manual_seed(0), mean=mean, scale=scale)
    assert bool((t > 0).all() and (t < 1).all())
    logits = torch.logit(t)
    assert float(logits.mean()) == pytest.approx(mean, abs=0.01)
    assert float(logits.std()) == pytest.approx(scale, abs=0.01)
