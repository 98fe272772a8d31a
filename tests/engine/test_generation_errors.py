"""What cannot be generated is reported in one sentence, before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow

PROMPT = "a red circle above a blue square"
FAST: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": ""}, "prompt is ''"),
        ({"prompts": " \n"}, "prompt is"),
        ({"prompts": []}, "no prompt was given"),
        ({"prompts": ["a", None]}, "prompt is None"),
        ({"prompts": "star " * 3000}, "a prompt has .* tokens"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 10_001}, "num_inference_steps is 10001; expected a whole number from 1 to 10000"),
        ({"num_inference_steps": -3}, "num_inference_steps is -3"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval"),
        ({"solver": "rk4"}, "solver is 'rk4'; choose from euler"),
        ({"shift": 0}, "shift is 0"),
        ({"height": 100}, "height is 100; expected a positive multiple of 16"),
        ({"width": -16}, "width is -16"),
        ({"height": 0}, "height is 0"),
        ({"height": 160_000, "width": 160_000}, "a prompt has .* tokens; next to .* image tokens"),
        ({"width": 64.0}, "width is 64.0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"output_type": "jpeg"}, "output_type is 'jpeg'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed"),
        ({"seed": [1, 2]}, "2 seeds were given for 1 picture$"),
        ({"seed": 1, "latents": torch.zeros(1, 4, 8, 8)}, "seed and latents were given"),
        ({"generator": [torch.Generator()] * 2}, "2 generators"),
        ({"latents": torch.zeros(2, 4, 8, 8)}, r"latents have shape \(2, 4, 8, 8\)"),
        ({"latents": torch.full((1, 4, 8, 8), float("nan"))}, "not finite"),
        ({"latents": torch.zeros(1, 4, 9, 8)}, "height is 72"),
        ({"latents": np.zeros((1, 4, 8, 8))}, "latents are ndarray; expected a tensor of floating-point numbers"),
        ({"latents": [0.0]}, "latents are list; expected a tensor"),
        ({"latents": torch.zeros(1, 4, 8, 8, dtype=torch.complex64)}, "latents are torch.complex64"),
        ({"prompts": 5}, "prompts is 5; expected some text"),
        ({"prompts": {"a": 1}}, "prompts is .*; expected some text"),
        ({"generator": 5}, "generator holds 5; expected a torch.Generator"),
        ({"strength": 0.5}, "need an image"),
        ({"guidance_scale": 1e16}, "guidance_scale is 1e\\+16; expected a number from 1 to 1e\\+06"),
        ({"shift": 1e-20}, "shift is 1e-20; expected a number from 1e-06 to 1e\\+06"),
        ({"image": Image.new("RGB", (64, 64)), "strength": 1e-9}, "strength is 1e-09; expected a number from 1e-06"),
        ({"mask": Image.new("L", (64, 64))}, "need an image"),
        ({"image": Image.new("RGB", (64, 64)), "strength": 0.0}, "strength is 0.0"),
        ({"image": Image.new("RGB", (64, 64)), "strength": 1.2}, "strength is 1.2"),
        ({"image": Image.new("RGB", (64, 64)), "strength": float("nan")}, "strength is nan"),
        ({"image": "missing.png"}, "does not exist"),
    ],
)
def test_what_is_not_allowed_is_said_in_one_sentence(
    small_model: JanusFlow, arguments: dict[str, Any], words: str
) -> None:
    prompts = arguments.pop("prompts", PROMPT)
    with pytest.raises(ValueError, match=words) as caught:
        small_model.generate(prompts, **{"output_type": "latent", **arguments})
    assert "\n" not in str(caught.value)


def test_latents_need_no_vae_and_pixels_say_what_is_missing(small_folder: Path, tmp_path: Path) -> None:
    model = JanusFlow.from_pretrained(small_folder, vae=tmp_path / "nowhere", device="cpu")
    assert model.generate(PROMPT, **FAST).shape == (1, 4, 8, 8)
    steps: list[int] = []
    with pytest.raises(ValueError, match="nowhere.*neither an AutoencoderKL folder"):
        model.generate(PROMPT, num_inference_steps=1, callback_on_step_end=lambda *step: steps.append(1))  # type: ignore
    assert not steps, "it was told after the painting"


def test_float16_is_refused_where_the_vae_would_overflow(small_folder: Path, vae_folder: Path) -> None:
    model = JanusFlow.from_pretrained(small_folder, vae=vae_folder, dtype="float16", device="cpu")
    with pytest.raises(ValueError, match="float16, in which the SDXL-VAE overflows"):
        model.generate(PROMPT, num_inference_steps=1)


def test_a_vae_that_does_not_fit_is_refused(small_folder: Path) -> None:
    tiny_vae = Path(__file__).parents[2] / "src" / "janusflow" / "assets" / "tiny"
    model = JanusFlow.from_pretrained(small_folder, vae=tiny_vae, device="cpu")
    with pytest.raises(ValueError, match="4 channels and factor 4; the network's latents have 4 channels and factor 8"):
        model.generate(PROMPT, num_inference_steps=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance_scale", "2"),
        ("guidance_interval", 0.5),
        ("guidance_interval", "01"),
        ("shift", [1.0]),
        ("shift", True),
    ],
)
def test_settings_that_are_not_numbers_are_refused(small_model: JanusFlow, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*expected"):
        small_model.generate("a star", **{name: value})
