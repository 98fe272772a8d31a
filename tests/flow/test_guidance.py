"""Guidance combines two velocities, only where it should, and runs no row in vain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from janusflow.flow import guide


class Rows:
    """Velocity functions that note how many rows they were run on."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def conditional(self, x: Tensor, t: Tensor) -> Tensor:
        self.runs.append(len(x))
        return torch.full_like(x, 2.0)

    def both(self, x: Tensor, t: Tensor) -> Tensor:
        self.runs.append(len(x))
        half = len(x) // 2
        return torch.cat([torch.full_like(x[:half], 2.0), torch.full_like(x[half:], 0.5)])


def test_the_two_velocities_are_extrapolated() -> None:
    rows = Rows()
    v = guide(rows.conditional, rows.both, scale=3.0)(torch.zeros(2, 1, 1, 1), torch.zeros(2))
    assert torch.allclose(v, torch.full_like(v, 3 * 2.0 - 2 * 0.5))
    assert rows.runs == [4]


def test_scale_one_runs_no_unconditional_row() -> None:
    rows = Rows()
    v = guide(rows.conditional, rows.both, scale=1.0)(torch.zeros(2, 1, 1, 1), torch.zeros(2))
    assert torch.allclose(v, torch.full_like(v, 2.0))
    assert rows.runs == [2]


@pytest.mark.parametrize(("t", "rows_run"), [(0.1, 2), (0.25, 4), (0.5, 4), (0.75, 4), (0.8, 2)])
def test_outside_its_interval_guidance_costs_nothing(t: float, rows_run: int) -> None:
    rows = Rows()
    guide(rows.conditional, rows.both, scale=3.0, interval=(0.25, 0.75))(torch.zeros(2, 1, 1, 1), torch.full((2,), t))
    assert rows.runs == [rows_run]


@pytest.mark.parametrize("step", range(11))
def test_the_ends_of_the_interval_belong_to_it_whatever_float32_makes_of_them(step: int) -> None:
    rows, t = Rows(), torch.full((2,), step / 10)
    guide(rows.conditional, rows.both, scale=3.0, interval=(step / 10, step / 10))(torch.zeros(2, 1, 1, 1), t)
    assert rows.runs == [4]


@pytest.mark.parametrize("scale", [0.5, -1.0, float("nan"), float("inf")])
def test_a_scale_below_one_or_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="guidance_scale"):
        guide(Rows().conditional, Rows().both, scale=scale)


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.5), (float("nan"), 1.0)])
def test_an_interval_outside_the_path_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="guidance_interval"):
        guide(Rows().conditional, Rows().both, scale=2.0, interval=interval)
