"""Jobs: the same picture alone, in a batch, and among rows at other steps; each forward runs what is needed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.generation import Sampling
from janusflow.engine.inpainting import KnownPicture
from janusflow.engine.jobs import Engine, Job, run
from janusflow.engine.settings import StepChange
from janusflow.model import PromptPrefix
from tests.conftest import TOLERANCE, error

REQUESTS: list[tuple[str, tuple[int, int], Sampling]] = [
    ("a red circle above a blue square", (8, 8), Sampling(5)),
    ("two", (8, 8), Sampling(3, guidance_scale=4.0, solver="heun")),
    ("three stars", (8, 8), Sampling(7, guidance_scale=1.0, solver="ab2", shift=2.0)),
    ("a", (8, 12), Sampling(4, guidance_interval=(0.3, 0.8), solver="midpoint")),
    ("a green line", (8, 8), Sampling(6, guidance_scale=3.0, guidance_interval=(0.0, 0.5))),
]


def job(model: JanusFlow, number: int, **options: Any) -> Job:
    """The request with this number, with noise of its own."""
    prompt, (height, width), sampling = REQUESTS[number]
    noise = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(number))
    return Job(model.network.encode_prompts(*model.processor.encode_prompts([prompt])), noise, sampling, **options)


@torch.inference_mode()
def test_a_picture_is_the_same_alone_and_among_rows_at_other_steps(small_model: JanusFlow) -> None:
    alone = [run(small_model.network, [job(small_model, number)])[0] for number in range(len(REQUESTS))]
    together = run(small_model.network, [job(small_model, number) for number in range(len(REQUESTS))])
    assert all(error(one, two) <= TOLERANCE for one, two in zip(alone, together, strict=True))
    engine, running, found = Engine(small_model.network), {}, {}
    waiting = list(range(len(REQUESTS)))
    while waiting or running:  # one more job joins before each step
        if waiting:
            number = waiting.pop(0)
            running[number] = job(small_model, number)
        engine.advance(list(running.values()))
        for number in [number for number, one in running.items() if one.result is not None]:
            found[number] = running.pop(number).result
    assert all(error(found[number], alone[number]) <= TOLERANCE for number in found)
    assert len(found) == len(REQUESTS)


@torch.inference_mode()
def test_one_forward_per_size_with_only_the_rows_that_are_needed(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int, int]] = []  # pictures, rows, width
    velocity = small_model.network.velocity

    def counted(x: Tensor, t: Tensor, prefix: PromptPrefix, of: Tensor) -> Tensor:
        rows.append((len(x), len(prefix.lengths), x.shape[-1]))
        return velocity(x, t, prefix, of)

    jobs = [job(small_model, number) for number in range(len(REQUESTS))]
    monkeypatch.setattr(small_model.network, "velocity", counted)
    Engine(small_model.network).advance(jobs)
    assert rows == [(4, 7, 8), (1, 1, 12)]  # request 2 has no guidance, and request 3 not at t = 0


@torch.inference_mode()
def test_callbacks_masks_and_stops_of_one_job_leave_the_others_as_they_are(small_model: JanusFlow) -> None:
    known = KnownPicture(torch.ones(1, 4, 8, 8), torch.zeros(1, 1, 8, 8))
    seen: list[float] = []

    def stop(index: int, t: float, x: Tensor) -> StepChange:
        seen.append(t)
        return StepChange(stop=index == 1)

    (plain,) = run(small_model.network, [job(small_model, 0)])
    jobs = [job(small_model, 4, callback=stop), job(small_model, 0), job(small_model, 1, known=known)]
    stopped, other, kept = run(small_model.network, jobs)
    assert seen == [pytest.approx(1 / 6), pytest.approx(2 / 6)]
    assert stopped.shape == plain.shape
    assert error(other, plain) <= TOLERANCE
    assert torch.equal(kept, known.latents)


@torch.inference_mode()
@pytest.mark.parametrize("end", ["last step", "stop", "error"])
def test_a_job_whose_solver_has_ended_refuses_another_velocity_and_keeps_its_result(
    small_model: JanusFlow, end: str
) -> None:
    def after_step(index: int, t: float, x: Tensor) -> StepChange:
        if end == "error":
            raise MemoryError("out of memory")
        return StepChange(stop=end == "stop")

    prefix = small_model.network.encode_prompts(*small_model.processor.encode_prompts(["a"]))
    ended = Job(prefix, torch.zeros(1, 4, 8, 8), Sampling(1), callback=after_step)
    with pytest.raises(MemoryError) if end == "error" else nullcontext():
        ended.receive(torch.ones_like(ended.x))
    result = ended.result
    with pytest.raises(RuntimeError, match="the job has ended"):
        ended.receive(torch.ones_like(ended.x))
    assert ended.result is result and (result is None) == (end == "error")
