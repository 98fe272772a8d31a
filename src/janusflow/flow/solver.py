"""Integrate dx/dt = v(x, t) from noise (t = 0) to data (t = 1), for any velocity function.

    x1 = integrate(velocity, x0, uniform_times(30))

A solver is a generator: it yields (x, t), receives v(x, t), and returns x. One loop can therefore drive pictures at
different steps with different solvers, and evaluate their velocities together. All arithmetic is in x's dtype; times
are Python floats, so that they are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from janusflow.arguments import quoted
from janusflow.flow.guidance import Velocity

Result = TypeVar("Result")
StepCallback: TypeAlias = Callable[[int, float, Tensor], "Tensor | None"]
"""Called after a step with (index from 0, the time reached, x); a returned tensor replaces x."""

Evaluations: TypeAlias = Generator[tuple[Tensor, float], Tensor, Result]
"""Yields (x, t), receives v(x, t), returns a result."""

AT_DATA = 1e-9  # distance from t = 1 within which a time is 1 up to rounding


@dataclass(frozen=True)
class Slope:
    """Memory of two-step methods: the velocity at the start of an earlier step, and that step's length."""

    velocity: Tensor
    length: float


Step: TypeAlias = Callable[[Tensor, float, float, Any], Evaluations[tuple[Tensor, Any]]]
"""One step, (x, t, h, memory) -> (x at t + h, memory for the next step); the memory of the first step is None."""


@dataclass(frozen=True)
class Solver:
    """One entry of `METHODS`.

    Attributes:
        step: generator of one step: takes (x, t, length of the step, memory of the previous step or None), yields the
            points to evaluate, and returns x at the end of the step and the memory for the next step.
        evaluations: number of velocities that one step needs.
    """

    step: Step
    evaluations: int


def uniform_times(steps: int, start: float = 0.0) -> list[float]:
    """start = t_0 < ... < t_N = 1, equally spaced: with start 0, t_k = k / N.

    Raises:
        ValueError: for fewer than 1 step or a start outside [0, 1).
    """
    if steps < 1:
        raise ValueError(f"num_inference_steps is {steps}; at least 1 is needed")
    if not 0 <= start < 1:
        raise ValueError(f"the integration starts at t = {start}; expected 0 <= t < 1")
    return [start + (1 - start) * k / steps for k in range(steps + 1)]


def shifted_times(steps: int, shift: float, start: float = 0.0) -> list[float]:
    """Map the uniform grid by t -> t / (t + s (1 - t)): s > 1 has more steps near the noise (arXiv 2403.03206).

    Raises:
        ValueError: as in `uniform_times`, and for a shift that is not positive.
    """
    if not 0 < shift < float("inf"):
        raise ValueError(f"shift is {shift}; expected a positive number (1 is the uniform grid)")
    uniform_times(steps, start)  # for its checks
    times = [t / (t + shift * (1 - t)) for t in uniform_times(steps)]
    return [start + (1 - start) * t for t in times]


def solve(
    x: Tensor, times: Sequence[float], *, method: str = "euler", callback: StepCallback | None = None
) -> Evaluations[Tensor]:
    """Generator over all steps: yields (x, t), receives v(x, t), and returns x at the last time.

    Args:
        x: (B, ...) at the first time.
        times: increasing times, at least two.
        method: a key of `METHODS`.
        callback: see `StepCallback`.

    Raises:
        ValueError: for an unknown method or times that do not increase.
    """
    if method not in METHODS:
        raise ValueError(f"solver is {quoted(method)}; choose from {', '.join(METHODS)}")
    if len(times) < 2 or any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError(f"times must increase, and be at least two: {list(times)[:5]}")
    step, memory = METHODS[method].step, None
    for index, (t, later) in enumerate(itertools.pairwise(times)):
        x, memory = yield from step(x, t, later - t, memory)
        replaced = callback(index, later, x) if callback else None
        if replaced is not None:
            x = replaced
    return x


def drive(velocity: Velocity, evaluations: Evaluations[Result]) -> Result:
    """Run one generator with one velocity function, and return its result."""
    try:
        x, t = next(evaluations)
        while True:
            v = velocity(x, torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device))
            x, t = evaluations.send(v)
    except StopIteration as ended:
        result: Result = ended.value
        return result


def integrate(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    method: str = "euler",
    callback: StepCallback | None = None,
) -> Tensor:
    """Return x at the last time; `velocity` is v(x, t), and the other arguments are those of `solve`.

    Example:
        >>> x = integrate(lambda x, t: x, torch.ones(1), uniform_times(100), method="heun")  # dx/dt = x
        >>> round(float(x), 3)
        2.718
    """
    return drive(velocity, solve(x, times, method=method, callback=callback))


def _euler(x: Tensor, t: float, h: float, memory: Slope | None) -> Evaluations[tuple[Tensor, Slope]]:
    """x + h v(x, t). Order 1."""
    v = yield x, t
    return x + h * v, Slope(v, h)


def _midpoint(x: Tensor, t: float, h: float, memory: Slope | None) -> Evaluations[tuple[Tensor, Slope]]:
    """x + h v(x + h/2 v(x, t), t + h/2). Order 2."""
    v = yield x, t
    middle = yield x + h / 2 * v, t + h / 2
    return x + h * middle, Slope(v, h)


def _heun(x: Tensor, t: float, h: float, memory: Slope | None) -> Evaluations[tuple[Tensor, Slope]]:
    """x + h/2 (v(x, t) + v(x + h v(x, t), t + h)). Order 2."""
    v = yield x, t
    end = yield x + h * v, t + h
    return x + h / 2 * (v + end), Slope(v, h)


def _adams_bashforth(x: Tensor, t: float, h: float, memory: Slope | None) -> Evaluations[tuple[Tensor, Slope]]:
    """x + h ((1 + r/2) v_k - r/2 v_{k-1}), r = h_k / h_{k-1}; the first step is Euler's. Order 2.

    The weights integrate the line through the last two slopes, so they hold on uneven grids, where the usual 3/2 and
    -1/2 (r = 1) do not.
    """
    v = yield x, t
    if memory is None:
        return x + h * v, Slope(v, h)
    half_ratio = h / memory.length / 2
    return x + h * ((1 + half_ratio) * v - half_ratio * memory.velocity), Slope(v, h)


@dataclass(frozen=True)
class Predicted:
    """Memory of UniPC: the step from s to t, until v(x, t) is known and corrects x.

    Attributes:
        data: m(s), the data predicted at s.
        logit: lambda(s).
        known: the part of the correction of x that needs no new velocity; 0 after a step of first order.
        weight: weight of m(t) - m(s) in the correction.
    """

    data: Tensor
    logit: float
    known: Tensor | float
    weight: float


def _unipc(x: Tensor, t: float, h: float, memory: Predicted | None) -> Evaluations[tuple[Tensor, Predicted]]:
    """UniPC of order 2 with B(h) = e^h - 1 and data prediction (arXiv 2302.04867), for the straight path. Order 2.

    With lambda = log(t / (1 - t)), m(t) = x + (1 - t) v(x, t), e = 1 - exp(-(lambda(t + h) - lambda(t))) and the slope
    D = (m(t) - m(s)) / (lambda(t) - lambda(s)) (lambda(t + h) - lambda(t)), s the start of the step before:

        x(t + h) = (1 - t - h) / (1 - t) x + (t + h) e (m(t) + D / 2)

    Once m(t + h) is known, at the start of the next step, x(t + h) is corrected with second-order weights of D and
    m(t + h) - m(t). Where lambda is infinite, steps are of first order: the first one, the predictor of the one after
    t = 0, and steps to t = 1.
    """
    v = yield x, t
    end = t + h
    data, logit, next_logit = x + (1 - t) * v, _logit(t), _logit(end)
    if logit == math.inf:  # so near to the data that the weights below are not numbers
        return x + h * v, Predicted(data, logit, 0.0, 0.0)
    if memory is not None:
        x = x + memory.known + memory.weight * (data - memory.data)
    gap = next_logit - logit
    scale = -end * math.expm1(-gap)
    x = (1 - end) / (1 - t) * x + scale * data
    if memory is None or math.isinf(next_logit):
        return x, Predicted(data, logit, 0.0, scale / 2)
    ratio = (memory.logit - logit) / gap
    slope = (memory.data - data) / ratio
    old, new = _corrector(gap, ratio)
    return x + scale / 2 * slope, Predicted(data, logit, scale * (old - 0.5) * slope, scale * new)


def _corrector(gap: float, ratio: float) -> tuple[float, float]:
    """Return the weights of the old and new slope in UniPC's corrector: they integrate e^lambda times both exactly."""
    linear = (-math.expm1(-gap) / gap - 1) / math.expm1(-gap)
    square = 2 * (-linear * math.expm1(-gap) / gap - 0.5) / math.expm1(-gap)
    old = (square - linear) / (ratio - 1)
    return old, linear - old


def _logit(t: float) -> float:
    if t <= 0 or 1 - t < AT_DATA:
        return -math.inf if t <= 0 else math.inf
    return math.log(t / (1 - t))


METHODS: dict[str, Solver] = {
    "euler": Solver(_euler, evaluations=1),
    "midpoint": Solver(_midpoint, evaluations=2),
    "heun": Solver(_heun, evaluations=2),
    "ab2": Solver(_adams_bashforth, evaluations=1),
    "unipc": Solver(_unipc, evaluations=1),
}
"""Name to solver; ab2 is the two-step Adams-Bashforth method, unipc a predictor with a corrector of order 2."""
