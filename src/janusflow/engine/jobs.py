"""Generation jobs: jobs of one picture size share each forward, at any steps, times, guidance weights and solvers.

    results = run(network, [Job(prefix, noise, sampling), Job(other_prefix, other_noise, other_sampling)])

A job is one solver with the rows that it moves. `Engine.advance` evaluates what every job needs next, in one forward
per picture size, and returns each job's velocities to it. A scheduler may add and drop jobs between two calls.

Shapes: N pictures of a job, (C, H, W) a latent, R rows of a forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from janusflow.engine.generation import Sampling
from janusflow.engine.inpainting import KnownPicture
from janusflow.engine.settings import StepChange
from janusflow.flow import combine, guided_at, interpolate, solve
from janusflow.model import JanusFlowForConditionalGeneration, PromptPrefix
from janusflow.model.graphs import Graphed
from janusflow.model.kernels import kernels_of
from janusflow.model.llama import runs_plainly

Composition = tuple[torch.Size, tuple[tuple[PromptPrefix, bool], ...]]
"""The rows of a forward: for each job, its prompts and whether it is guided."""

StepCallback = Callable[[int, float, Tensor], StepChange]


class Job:
    """N pictures that take their steps together.

    Args:
        prefix: the prompts of the N rows, read once.
        noise: x_0, (N, C, H, W) float32.
        sampling: steps, guidance and solver.
        known: pictures to start from; where nothing is repainted, x is put back on their path after every step.
        callback: called with (step, t, x) after each step; the change that it returns is applied.

    Attributes:
        x, t: the next evaluation, (N, C, H, W) and a time in [0, 1].
        scale: guidance weight of that evaluation.
        velocity: the velocity received last.
        result: x_1 once the job is done, None before.
    """

    def __init__(
        self,
        prefix: PromptPrefix,
        noise: Tensor,
        sampling: Sampling,
        *,
        known: KnownPicture | None = None,
        callback: StepCallback | None = None,
    ) -> None:
        self.prefix, self.scale = prefix, sampling.guidance_scale
        self.result: Tensor | None = None
        self.velocity = torch.zeros_like(noise)
        self._interval, self._noise, self._known, self._callback = sampling.guidance_interval, noise, known, callback
        start = start_of_path(noise, sampling, known)
        self._steps = solve(start, sampling.times(), method=sampling.solver, callback=self._after_step)
        self.x, self.t = next(self._steps)

    @property
    def guided(self) -> bool:
        """Whether the next evaluation needs unconditional rows."""
        return guided_at(self.t, self.scale, self._interval)

    def receive(self, velocity: Tensor) -> None:
        """Take the guided v(x, t) and move on to the next evaluation or to the result.

        Raises:
            RuntimeError: if the job has ended, with a result or an error.
        """
        self.velocity = velocity
        try:
            self.x, self.t = self._steps.send(velocity)
        except StopIteration as ended:
            if ended.value is None:
                raise RuntimeError("the job has ended; it takes no further velocity") from None
            self.result = ended.value
        except _StoppedError as stopped:
            self.result = stopped.x

    def _after_step(self, index: int, t: float, x: Tensor) -> Tensor:
        x = self._put_back(x, t)
        change = self._callback(index, t, x) if self._callback else StepChange()
        if change.latents is not None:
            x = self._put_back(change.latents, t)
        if change.guidance_scale is not None:
            self.scale = change.guidance_scale
        if change.stop:
            raise _StoppedError(x)
        return x

    def _put_back(self, x: Tensor, t: float) -> Tensor:
        if self._known is None or self._known.repaint is None:
            return x
        path = interpolate(self._noise, self._known.latents, x.new_full((len(x),), t))
        return torch.where(self._known.repaint.bool(), x, path)


class _StoppedError(Exception):
    """Raised when a callback ends the integration at x."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def start_of_path(noise: Tensor, sampling: Sampling, known: KnownPicture | None) -> Tensor:
    """Return the start of the path: the noise, or with pictures x_t = t x_1 + (1 - t) x_0 at t = 1 - strength."""
    if known is None:
        return noise
    return interpolate(noise, known.latents, noise.new_full((len(noise),), sampling.times()[0]))


class Engine:
    """Evaluates velocities for jobs.

    Args:
        network: computes the velocity.
    """

    def __init__(self, network: JanusFlowForConditionalGeneration) -> None:
        self.network = network
        self._velocities: dict[Composition, Callable[[Tensor, Tensor], Tensor]] = {}

    def advance(self, jobs: Sequence[Job]) -> None:
        """Evaluate every job once, with one forward per picture size; none of the jobs may be done."""
        by_size: dict[torch.Size, list[Job]] = defaultdict(list)
        for job in jobs:
            by_size[job.x.shape[1:]].append(job)
        velocities: dict[Composition, Callable[[Tensor, Tensor], Tensor]] = {}
        for same in by_size.values():
            guided = [job for job in same if job.guided]
            x = torch.cat([job.x for job in same])
            t = torch.cat([job.x.new_full((len(job.x),), job.t) for job in same])
            key = (x.shape, tuple((job.prefix, job.guided) for job in same))
            velocities[key] = self._velocities.get(key) or self._velocity_of(same, guided)
            found = velocities[key](x, t).split(sizes_of([*same, *guided]))
            without = dict(zip(map(id, guided), found[len(same) :], strict=True))
            for job, v in zip(same, found, strict=False):
                job.receive(combine(v, without[id(job)], job.scale) if id(job) in without else v)
        self._velocities = velocities  # only of this composition: the next forward usually has the same

    def _velocity_of(self, jobs: Sequence[Job], guided: Sequence[Job]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the velocity as a function of x and t: all jobs' rows, then unconditional rows of the guided jobs."""
        pictures = torch.arange(sum(sizes_of(jobs)), device=jobs[0].x.device).split(sizes_of(jobs))
        places = dict(zip(map(id, jobs), pictures, strict=True))
        of = torch.cat([*pictures, *(places[id(job)] for job in guided)])
        prefix = PromptPrefix.concatenate(
            *(job.prefix for job in jobs), *(job.prefix.unconditional() for job in guided)
        )

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.network.velocity(x, t, prefix, of)

        llm = self.network.language_model
        return Graphed(velocity) if kernels_of(llm).graphs and runs_plainly(llm) else velocity


def sizes_of(jobs: Sequence[Job]) -> list[int]:
    """Return the number of pictures of each job."""
    return [len(job.x) for job in jobs]


def run(network: JanusFlowForConditionalGeneration, jobs: Sequence[Job]) -> list[Tensor]:
    """Return x_1 of every job, advancing all of them together until the last is done."""
    engine = Engine(network)
    while open_jobs := [job for job in jobs if job.result is None]:
        engine.advance(open_jobs)
    return [job.result for job in jobs if job.result is not None]
