"""Jobs that run among others have the results that they have on their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.engine.generation import choose_noise
from janusflow.engine.understanding import Decoding
from janusflow.pipelines.janus import Janus
from janusflow.serving import pictures, texts
from janusflow.serving.jobs import Event, Failed, PictureDone, PictureRequest, Preview, TextDone, TextRequest, Token
from janusflow.serving.pictures import preview_steps
from janusflow.serving.runner import PipelineRunner, give_cores
from janusflow.serving.scheduler import Scheduler
from tests.serving.conftest import finish, picture_of

PROMPT = "a red circle"
QUESTION = "what color is the circle?"


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, (Token, TextDone)))


def question(model: JanusFlow | Janus, text: str, picture: Image.Image | None = None, **decoding: Any) -> TextRequest:
    images = [] if picture is None else [picture]
    message = {"role": "user", "content": model.processor.question(text, len(images)), "images": images}
    inputs = model.processor.encode_conversations([[message]], continue_final_message=True)
    return TextRequest(model, inputs, Decoding(max_new_tokens=12, **decoding))


def test_texts_and_pictures_among_others_equal_those_of_the_pipeline(small_model: JanusFlow) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    shown, mask = Image.fromarray(pixels), np.zeros((40, 48), bool)
    mask[:, :20] = True
    asked: list[tuple[str, dict[str, Any]]] = [
        (PROMPT, {"num_inference_steps": 4}),
        ("two stars above a green square", {"num_inference_steps": 3, "solver": "heun", "guidance_scale": 1.0}),
        (PROMPT, {"num_inference_steps": 6, "solver": "ab2", "guidance_interval": (0.2, 0.7), "shift": 2.0}),
        (PROMPT, {"num_inference_steps": 5, "solver": "midpoint", "height": 32, "width": 48}),
        (PROMPT, {"num_inference_steps": 4, "image": shown, "strength": 0.5}),
        (PROMPT, {"num_inference_steps": 4, "image": shown, "mask": mask}),
    ]
    pictures = [
        PictureRequest(
            small_model, "small", prompt, seed, small_model.resolve(prompt, own), own.get("image"), own.get("mask")
        )
        for seed, (prompt, own) in enumerate(asked)
    ]
    sampled = {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "seed": 4}
    answers = [
        question(small_model, QUESTION, shown),
        question(small_model, "hello"),
        question(small_model, QUESTION, **sampled),
    ]
    found = finish([*pictures, *answers])
    for seed, (prompt, own) in enumerate(asked):
        alone = small_model.generate(prompt, seed=seed, progress=False, **own)[0]
        assert np.abs(picture_of(found[seed]).astype(int) - np.asarray(alone, int)).max() <= 1, own
    expected = [
        small_model.ask(QUESTION, shown, max_new_tokens=12),
        small_model.ask("hello", max_new_tokens=12),
        small_model.ask(QUESTION, max_new_tokens=12, **sampled),
    ]
    assert list(map(text_of, found[len(asked) :])) == expected


def test_a_prompt_that_is_read_in_parts_has_the_same_answer(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Image.new("RGB", (30, 20), "red")
    monkeypatch.setattr(texts, "PREFILL", 7)
    found = finish([question(small_model, QUESTION, shown, repetition_penalty=1.2)])
    assert text_of(found[0]) == small_model.ask(QUESTION, shown, max_new_tokens=12, repetition_penalty=1.2)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_and_answers_of_janus_are_those_of_its_pipeline(janus: Janus, guidance: float) -> None:
    settings = janus.resolve(PROMPT, {"guidance_scale": guidance})
    picture, answer = finish(
        [PictureRequest(janus, "janus", PROMPT, 3, settings, previews=2), question(janus, "hello")]
    )
    expected = janus.generate(PROMPT, seed=3, guidance_scale=guidance, progress=False)[0]
    assert (picture_of(picture) == np.asarray(expected)).all()
    previews = [event for event in picture if isinstance(event, Preview)]
    assert [one.index for one in previews] == [0, 1]
    assert previews[0].picture.size == expected.size
    assert text_of(answer) == janus.ask("hello", max_new_tokens=12)


def test_an_edit_of_janus_is_that_of_its_pipeline(janus: Janus) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    shown = Image.fromarray(pixels)
    edited: dict[str, Any] = {"image": shown, "image_guidance_scale": 2.0}
    for given in (edited, {"image": shown}):
        (events,) = finish([PictureRequest(janus, "janus", PROMPT, 3, janus.resolve(PROMPT, given), shown)])
        expected = np.asarray(janus.generate(PROMPT, seed=3, progress=False, **given)[0])
        assert (picture_of(events) == expected).all()
    assert (expected != np.asarray(janus.generate(PROMPT, seed=3, progress=False)[0])).any()


def test_previews_wait_for_each_other_and_are_those_of_a_picture_alone(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        PictureRequest(
            small_model, "small", PROMPT, seed, small_model.resolve(PROMPT, {"num_inference_steps": steps}), previews=2
        )
        for seed, steps in enumerate((6, 7, 9, 12))
    ]
    alone = [finish([request])[0] for request in requests]
    decoded, decode = [], small_model.decode

    def counted(latents: torch.Tensor, decoder: str = "vae") -> torch.Tensor:
        decoded.append(len(latents))
        return decode(latents, decoder)

    monkeypatch.setattr(small_model, "decode", counted)
    for events, expected in zip(finish(requests), alone, strict=True):
        assert [type(event) for event in events] == [Preview, Preview, PictureDone]
        for event, other in zip(events, expected, strict=True):
            assert np.abs(np.asarray(event.picture, int) - np.asarray(other.picture, int)).max() <= 1
    assert sum(decoded) == 12 and len(decoded) <= 7


def test_a_preview_that_cannot_be_decoded_is_left_out(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, decode = small_model.resolve(PROMPT, {"num_inference_steps": 4}), small_model.decode

    def without_previews(latents: torch.Tensor, decoder: str = "vae") -> torch.Tensor:
        if decoder == "preview":
            raise RuntimeError("no memory")
        return decode(latents, decoder)

    monkeypatch.setattr(small_model, "decode", without_previews)
    found = finish([PictureRequest(small_model, "small", PROMPT, 0, settings, previews=2)])
    assert [type(event) for event in found[0]] == [PictureDone]


def test_pictures_share_each_forward(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, velocity = [], small_model.network.velocity

    def counted(x: Any, *given: Any) -> Any:
        rows.append(len(x))
        return velocity(x, *given)

    monkeypatch.setattr(small_model.network, "velocity", counted)
    settings = [small_model.resolve(PROMPT, {"num_inference_steps": steps}) for steps in (2, 4, 4)]
    found = finish([PictureRequest(small_model, "small", PROMPT, 0, one) for one in settings])
    assert rows == [3, 3, 2, 2]
    assert all(isinstance(events[-1], PictureDone) for events in found)


@pytest.mark.parametrize("most", [10, 1])
def test_pictures_that_are_finished_are_decoded_together_unless_that_fails(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    decoded, decode = list[int](), JanusFlow.decode

    def counted(self: JanusFlow, latents: Any, decoder: str) -> Any:
        decoded.append(len(latents))
        if len(latents) > most:
            raise MemoryError("out of memory")
        return decode(self, latents, decoder)

    monkeypatch.setattr(JanusFlow, "decode", counted)
    settings = small_model.resolve(PROMPT, {"num_inference_steps": 2})
    found = finish([PictureRequest(small_model, "small", PROMPT, seed, settings) for seed in range(3)])
    assert decoded == ([3] if most == 10 else [3, 1, 1, 1])
    monkeypatch.undo()
    for seed, events in enumerate(found):
        alone = small_model.generate(PROMPT, seed=seed, num_inference_steps=2, progress=False)[0]
        assert np.abs(np.asarray(picture_of(events), int) - np.asarray(alone, int)).max() <= 1


def test_a_forward_that_fails_ends_only_the_job_that_fails_on_its_own(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    velocity = small_model.network.velocity

    def full(x: Any, *given: Any) -> Any:
        if len(x) > 1 or float(x.abs().max()) > 100:
            raise MemoryError("out of memory")
        return velocity(x, *given)

    monkeypatch.setattr(small_model.network, "velocity", full)
    monkeypatch.setattr(pictures, "choose_noise", lambda *given: choose_noise(*given) * (1000 if given[2] == 1 else 1))
    settings = small_model.resolve(PROMPT, {"num_inference_steps": 2})
    made, failed, other = finish([PictureRequest(small_model, "small", PROMPT, seed, settings) for seed in range(3)])
    assert isinstance(failed[-1], Failed)
    picture_of(made)
    picture_of(other)


def test_a_picture_whose_last_step_precedes_the_error_of_another_size_is_finished(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    velocity, calls = small_model.network.velocity, list[int]()

    def full(x: Any, *given: Any) -> Any:
        calls.append(x.shape[-1])
        if x.shape[-1] == 12 and calls.count(12) > 1:
            raise MemoryError("out of memory")
        return velocity(x, *given)

    monkeypatch.setattr(small_model.network, "velocity", full)
    asked: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0, "height": 64}
    settings = [small_model.resolve(PROMPT, {**asked, "width": width}) for width in (64, 96)]
    scheduler, made, failed = Scheduler(PipelineRunner()), list[Event](), list[Event]()
    requests = [PictureRequest(small_model, "small", PROMPT, 0, one) for one in settings]
    scheduler.submit(requests, [made.append, failed.append])
    for _ in range(10):
        scheduler.tick()
    assert isinstance(failed[-1], Failed) and 8 in calls
    picture_of(made)


def test_the_error_of_one_job_leaves_the_others_alone(small_model: JanusFlow) -> None:
    settings = small_model.resolve(PROMPT, {"num_inference_steps": 2})
    broken = PictureRequest(small_model, "small", PROMPT, 0, {**settings, "solver": "none"})
    failed, made = finish([broken, PictureRequest(small_model, "small", PROMPT, 0, settings)])
    assert isinstance(failed[-1], Failed)
    picture_of(made)


@pytest.mark.parametrize(
    ("steps", "previews", "expected"), [(30, 2, [9, 19]), (6, 3, [0, 2, 3]), (2, 3, [0]), (1, 1, []), (5, 0, [])]
)
def test_previews_are_spread_over_the_steps(steps: int, previews: int, expected: list[int]) -> None:
    assert preview_steps(steps, previews) == expected


def test_only_the_models_thread_computes_on_several_cores() -> None:
    before, scheduler = torch.get_num_threads(), Scheduler(PipelineRunner())
    scheduler.start()
    try:
        torch.set_num_threads(2)
        give_cores(scheduler.call)
        assert scheduler.call(torch.get_num_threads) == 2
        assert torch.get_num_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
    finally:
        scheduler.close()
        torch.set_num_threads(before)
