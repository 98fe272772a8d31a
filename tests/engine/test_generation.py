"""Generating pictures: batches, seeds, sizes, solvers and output types."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.generation import choose_seeds
from janusflow.model import JanusFlowForConditionalGeneration, PromptPrefix
from tests.conftest import TOLERANCE, error

PROMPT = "a red circle above a blue square"
FAST: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent"}


def rows_run(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Counts the rows of every run of the network."""
    runs: dict[str, list[int]] = {"velocity": [], "encode_prompts": []}
    for name in runs:
        original = getattr(JanusFlowForConditionalGeneration, name)

        def counted(self: Any, x: Tensor, *args: Any, name: str = name, original: Any = original) -> Any:
            runs[name].append(len(args[1].lengths) if name == "velocity" else len(x))
            return original(self, x, *args)

        monkeypatch.setattr(JanusFlowForConditionalGeneration, name, counted)
    return runs


def test_several_prompts_and_pictures_come_in_order(small_model: JanusFlow) -> None:
    prompts = [PROMPT, "three stars", "a"]
    together = small_model.generate(prompts, num_images_per_prompt=2, seed=5, **FAST)
    assert together.shape == (6, 4, 8, 8)
    for index, prompt in enumerate(prompts):
        for picture in range(2):
            alone = small_model.generate(prompt, seed=5 + picture, **FAST)
            assert error(together[2 * index + picture][None], alone) <= TOLERANCE


def test_how_pictures_are_batched_changes_nothing(small_model: JanusFlow) -> None:
    prompts = [PROMPT, "three stars"]
    whole = small_model.generate(prompts, num_images_per_prompt=3, seed=0, **FAST)
    parts = small_model.generate(prompts, num_images_per_prompt=3, seed=0, batch_size=2, **FAST)
    assert error(parts, whole) <= TOLERANCE


def test_a_batch_reads_its_own_prompts_alone(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    read, encode = [], small_model.network.encode_prompts

    def counted(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> PromptPrefix:
        read.append(len(input_ids))
        return encode(input_ids, attention_mask)

    monkeypatch.setattr(small_model.network, "encode_prompts", counted)
    small_model.generate(["a", "b", "c", "d", "e"], num_images_per_prompt=2, batch_size=3, **FAST)
    assert read == [2, 2, 2, 1]  # pictures a a b, b c c, d d e, e


def test_seeds_per_picture_and_generators(small_model: JanusFlow) -> None:
    a, b = (small_model.generate(PROMPT, seed=seed, **FAST) for seed in (3, 8))
    assert not torch.equal(a, b)
    listed = small_model.generate([PROMPT, PROMPT], seed=[8, 3], **FAST)
    assert error(listed, torch.cat([b, a])) <= TOLERANCE
    generators = [torch.Generator().manual_seed(seed) for seed in (8, 3)]
    assert error(small_model.generate([PROMPT, PROMPT], generator=generators, **FAST), listed) <= TOLERANCE
    one = small_model.generate(PROMPT, generator=torch.Generator().manual_seed(3), **FAST)
    assert error(one, a) <= TOLERANCE
    free = [small_model.generate(PROMPT, **FAST) for _ in range(2)]
    assert not torch.equal(*free)


def test_a_callers_random_state_is_left_alone(small_model: JanusFlow) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    small_model.generate(PROMPT, seed=1, **FAST)
    assert torch.equal(torch.rand(3), expected)


def test_prefixes_are_read_once_and_only_needed_rows_run(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = rows_run(small_model, monkeypatch)
    small_model.generate([PROMPT, "a"], num_images_per_prompt=2, num_inference_steps=5, output_type="latent")
    assert runs == {"velocity": [8] * 5, "encode_prompts": [2]}
    runs["velocity"].clear()
    small_model.generate(PROMPT, guidance_scale=1.0, **FAST)
    assert runs["velocity"] == [1, 1, 1]
    runs["velocity"].clear()
    small_model.generate(PROMPT, guidance_interval=(0.3, 0.7), num_inference_steps=4, output_type="latent")
    assert runs["velocity"] == [1, 1, 2, 1]


def test_output_types(small_model: JanusFlow) -> None:
    settings: dict[str, Any] = {"seed": 2, "num_inference_steps": 2}
    latent = small_model.generate(PROMPT, output_type="latent", **settings)
    array = small_model.generate(PROMPT, output_type="np", **settings)
    (picture,) = small_model.generate(PROMPT, **settings)
    assert latent.dtype == torch.float32
    assert array.shape == (1, 64, 64, 3)
    assert 0 <= array.min() <= array.max() <= 1
    pixels = small_model.codec.vae.decode(latent / 0.13025).sample.clip(-1, 1)
    expected = ((pixels[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).astype(np.uint8)
    assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1
    assert np.array_equal(np.asarray(picture), (array[0] * 255).astype(np.uint8))


def test_solvers_and_grids_integrate_a_known_field(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    """dx/dt = 2 (c - x) ends at c + (x_0 - c) exp(-2)."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    goal = torch.full_like(noise, 0.5)
    monkeypatch.setattr(
        JanusFlowForConditionalGeneration, "velocity", lambda self, x, t, *args: 2 * (goal[: len(x)] - x)
    )
    exact = goal + (noise - goal) * math.exp(-2)
    arguments: dict[str, Any] = {"latents": noise, "output_type": "latent", "guidance_scale": 1.0}
    for shift in (1.0, 2.0):
        for solver, least, most in (("euler", 5e-3, 3e-2), ("heun", 0, 2e-3), ("midpoint", 0, 2e-3), ("ab2", 0, 2e-3)):
            found = small_model.generate([PROMPT] * 2, num_inference_steps=20, solver=solver, shift=shift, **arguments)
            far = float((found - exact).norm() / (noise - goal).norm())
            assert least <= far < most, (solver, shift, far)


def test_sizes_are_multiples_of_the_model_s_own_image_token(tiny_model: JanusFlow) -> None:
    with pytest.warns(UserWarning, match="generating at 56 x 72"):
        (picture,) = JanusFlow(tiny_model.network, tiny_model.processor, tiny_model.vae).generate(
            PROMPT, height=72, width=56, num_inference_steps=1
        )
    assert picture.size == (56, 72)
    with pytest.raises(ValueError, match="height is 60; expected a positive multiple of 8 pixels"):
        tiny_model.generate(PROMPT, height=60)


def test_any_size_in_multiples_of_16_and_one_warning(small_folder: Path, vae_folder: Path) -> None:
    model = JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")
    with pytest.warns(
        UserWarning, match="generating at 32 x 96 .width x height.; these weights were trained at 64 x 64"
    ):
        (picture,) = model.generate(PROMPT, height=96, width=32, num_inference_steps=2)
    assert picture.size == (32, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate(PROMPT, height=16, width=48, **FAST).shape == (1, 4, 2, 6)
        assert model.generate(PROMPT, latents=torch.zeros(1, 4, 4, 10), **FAST).shape == (1, 4, 4, 10)


def test_callback_may_look_and_replace(small_model: JanusFlow) -> None:
    seen: list[tuple[int, float]] = []

    def blank(model: JanusFlow, step: int, t: float, state: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, t))
        return {"latents": torch.zeros_like(state["latents"])}

    result = small_model.generate(PROMPT, callback_on_step_end=blank, **FAST)
    assert seen == [(0, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3)), (2, pytest.approx(1.0))]
    assert not result.any()


def test_seeds() -> None:
    assert choose_seeds(7, 2, 2) == [7, 8, 7, 8]
    assert choose_seeds([1, 2], 1, 2) == [1, 2]
    assert len(set(choose_seeds(None, 1, 4))) == 4


@pytest.mark.parametrize("interval", [np.array([0.1, 0.9]), torch.tensor([0.1, 0.9], dtype=torch.float64), [0.1, 0.9]])
def test_numbers_of_other_libraries_are_taken_as_pythons(small_model: JanusFlow, interval: Any) -> None:
    settings: dict[str, Any] = {"seed": 0, "num_inference_steps": 2}
    expected = small_model.generate("a star", guidance_interval=(0.1, 0.9), guidance_scale=2.5, **settings)[0]
    found = small_model.generate("a star", guidance_interval=interval, guidance_scale=np.float32(2.5), **settings)[0]
    assert found.tobytes() == expected.tobytes()
    assert json.loads(found.info["janusflow"]) == json.loads(expected.info["janusflow"])
