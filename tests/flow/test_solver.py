"""Solvers on fields whose solutions are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from janusflow.flow import METHODS, Solver, integrate, shifted_times, solve, uniform_times
from janusflow.flow.solver import Evaluations, Slope

ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 2}


def field(x: Tensor, t: Tensor) -> Tensor:
    """dx/dt = x cos(3 t) + t, neither linear in t nor free of x."""
    t = t.view(-1, 1)
    return x * torch.cos(3 * t) + t


def exact(x0: Tensor) -> Tensor:
    """The solution of `field` at t = 1, by a fine fourth-order Runge-Kutta."""
    x, n = x0.clone(), 4000
    for k in range(n):
        t, h = k / n, 1 / n
        at = lambda x, s: field(x, torch.full((len(x),), s, dtype=x.dtype))  # noqa: E731
        k1 = at(x, t)
        k2 = at(x + h / 2 * k1, t + h / 2)
        k3 = at(x + h / 2 * k2, t + h / 2)
        k4 = at(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def observed_order(method: str, grid: Callable[[int], list[float]]) -> float:
    """Slope of the error against the step, from 160 to 640 steps."""
    x0 = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    target = exact(x0)
    errors = [float((integrate(field, x0, grid(n), method=method) - target).abs().max()) for n in (160, 640)]
    return math.log(errors[0] / errors[1]) / math.log(4)


@pytest.mark.parametrize("method", ORDER)
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.4])
def test_order_of_convergence_on_uniform_and_shifted_grids(method: str, shift: float) -> None:
    assert observed_order(method, lambda n: shifted_times(n, shift)) == pytest.approx(ORDER[method], abs=0.15)


def uneven_times(steps: int) -> list[float]:
    """Every second step twice as long as the one before."""
    ends = [0.0]
    for k in range(steps):
        ends.append(ends[-1] + (2.0 if k % 2 else 1.0))
    return [end / ends[-1] for end in ends]


def test_adams_bashforth_keeps_its_order_where_steps_alternate() -> None:
    assert observed_order("ab2", uneven_times) == pytest.approx(2, abs=0.15)


def test_the_weights_of_an_even_grid_would_lose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: with 3/2 and -1/2 the method is of first order there."""

    def fixed(x: Tensor, t: float, h: float, memory: Slope | None) -> Evaluations[tuple[Tensor, Slope]]:
        v = yield x, t
        return x + h * (v if memory is None else 1.5 * v - 0.5 * memory.velocity), Slope(v, h)

    monkeypatch.setitem(METHODS, "fixed", Solver(fixed, evaluations=1))
    assert observed_order("fixed", uneven_times) == pytest.approx(1, abs=0.15)


GRIDS: dict[str, Callable[[int], list[float]]] = {
    "uniform": uniform_times,
    "shift 3": lambda steps: shifted_times(steps, 3.0),
    "shift 0.4": lambda steps: shifted_times(steps, 0.4),
    "uneven": uneven_times,
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_unipc_is_at_least_of_second_order(grid: Callable[[int], list[float]]) -> None:
    x0 = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    target = exact(x0)
    errors = [float((integrate(field, x0, grid(n), method="unipc") - target).abs().max()) for n in (20, 160)]
    assert errors[0] / errors[1] > 8**2


@pytest.mark.parametrize(
    "times",
    [[0.001 + 0.999 * k / 10 for k in range(11)], shifted_times(7, 2.5, start=0.2), [0.001, 0.1, 0.5, 0.6, 1.0]],
    ids=["uniform", "shifted from 0.2", "uneven"],
)
def test_unipc_is_that_of_diffusers(times: list[float]) -> None:
    """Its times are sigma = 1 - t, its velocity points to the noise, and it does not begin at sigma = 1 exactly."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2)
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas = torch.tensor([1 - t for t in times], dtype=torch.float64)
    scheduler.timesteps = torch.arange(len(times) - 1)
    x0 = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    x = x0
    for step, t in zip(scheduler.timesteps, times, strict=False):
        x = scheduler.step(-field(x, x.new_full((len(x),), t)), step, x).prev_sample
    torch.testing.assert_close(integrate(field, x0, times, method="unipc"), x, rtol=1e-6, atol=1e-7)


def test_unipc_is_finite_on_a_grid_that_is_almost_at_the_data() -> None:
    x = integrate(field, torch.ones(1, 1), shifted_times(2000, 1e-6), method="unipc")
    assert bool(torch.isfinite(x).all())


def test_unipc_keeps_what_a_callback_puts_in_the_place_of_x() -> None:
    def put(index: int, t: float, x: Tensor) -> Tensor:
        return torch.full_like(x, 5.0)

    x = integrate(lambda x, t: torch.zeros_like(x), torch.zeros(1, 1), uniform_times(4), method="unipc", callback=put)
    assert float(x) == 5.0


@pytest.mark.parametrize("method", METHODS)
def test_a_straight_path_is_walked_exactly(method: str) -> None:
    x0, v = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    x1 = integrate(lambda x, t: v, x0, shifted_times(5, 2.0), method=method)
    torch.testing.assert_close(x1, x0 + v)


@pytest.mark.parametrize("method", METHODS)
def test_number_of_evaluations_shape_of_t_and_float32(method: str) -> None:
    seen: list[Tensor] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(x)

    x = integrate(velocity, torch.zeros(3, 4, 2, 2), uniform_times(7), method=method)
    assert len(seen) == 7 * METHODS[method].evaluations
    assert all(t.shape == (3,) and t.dtype == torch.float32 for t in seen)
    assert all(float(t.min()) >= 0 and float(t.max()) <= 1 for t in seen)
    assert x.dtype == torch.float32


def test_one_loop_drives_solvers_at_different_steps_to_the_same_bits() -> None:
    starts = {method: torch.randn(2, 3, generator=torch.Generator().manual_seed(i)) for i, method in enumerate(METHODS)}
    grids = {method: shifted_times(3 + i, 1.0 + i) for i, method in enumerate(METHODS)}
    running = {method: solve(starts[method], grids[method], method=method) for method in METHODS}
    asked = {method: next(steps) for method, steps in running.items()}
    found: dict[str, Tensor] = {}
    while asked:
        x = torch.cat([x for x, _ in asked.values()])
        t = torch.cat([x.new_full((len(x),), t) for x, t in asked.values()])
        velocities = field(x, t).split(2)
        for method, v in zip(list(asked), velocities, strict=True):
            try:
                asked[method] = running[method].send(v)
            except StopIteration as ended:
                found[method] = ended.value
                del asked[method]
    for method in METHODS:
        assert torch.equal(found[method], integrate(field, starts[method], grids[method], method=method))


def test_grids() -> None:
    assert uniform_times(4) == [0, 0.25, 0.5, 0.75, 1]
    assert uniform_times(2, start=0.5) == [0.5, 0.75, 1]
    assert shifted_times(4, 1.0) == uniform_times(4)
    shifted = shifted_times(4, 3.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert shifted[2] == pytest.approx(0.25)  # 0.5 / (0.5 + 3 * 0.5)
    assert shifted_times(2, 3.0, start=0.5) == pytest.approx([0.5, 0.625, 1])


def test_callback_sees_every_step_and_may_replace_the_state() -> None:
    calls: list[tuple[int, float]] = []

    def replace(index: int, t: float, x: Tensor) -> Tensor | None:
        calls.append((index, t))
        return torch.full_like(x, 7.0) if index == 1 else None

    x = integrate(lambda x, t: torch.ones_like(x), torch.zeros(1, 1), uniform_times(4), callback=replace)
    assert calls == [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0)]
    assert float(x) == 7.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uniform_times(0), "num_inference_steps is 0"),
        (lambda: uniform_times(3, start=1.0), "t = 1.0"),
        (lambda: shifted_times(3, 0.0), "shift is 0.0"),
        (lambda: shifted_times(3, 1.0, start=1.0), "t = 1.0"),
        (lambda: shifted_times(3, 1.0, start=-1.0), "t = -1.0"),
        (lambda: integrate(field, torch.zeros(1, 1), [0.0, 1.0], method="rk45"), "rk45"),
        (lambda: integrate(field, torch.zeros(1, 1), [0.0, 0.5, 0.5]), "increase"),
    ],
)
def test_bad_arguments_are_refused_by_name(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
