"""Code written for diffusers runs with one changed line, and paints what `JanusFlow.generate` paints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.callbacks import (
    IPAdapterScaleCutoffCallback,
    MultiPipelineCallbacks,
    SD3CFGCutoffCallback,
    SDCFGCutoffCallback,
    SDXLCFGCutoffCallback,
    SDXLControlnetCFGCutoffCallback,
)
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor

from janusflow import JanusFlow
from janusflow.interop.diffusers_pipeline import JanusFlowPipeline
from tests.conftest import GOLDEN

PROMPTS = ["a red circle", "two blue stars"]


@pytest.fixture
def pipe(small_model: JanusFlow) -> JanusFlowPipeline:
    pipeline = JanusFlowPipeline(small_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_paints_what_generate_paints(pipe: JanusFlowPipeline) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    images = pipe(
        prompt=PROMPTS,
        num_inference_steps=3,
        guidance_scale=2.0,
        num_images_per_prompt=2,
        generator=generators,
        output_type="pil",
    ).images
    again = pipe.model.generate(
        PROMPTS, num_inference_steps=3, num_images_per_prompt=2, seed=[0, 1, 2, 3], progress=False
    )
    assert len(images) == 4 and isinstance(images[0], Image.Image)
    assert all(np.array_equal(a, b) for a, b in zip(map(np.asarray, images), map(np.asarray, again), strict=True))
    assert isinstance(pipe("a star", num_inference_steps=1, return_dict=False), tuple)


def test_the_callback_gets_the_pipeline_and_replaces_latents(pipe: JanusFlowPipeline) -> None:
    seen: list[int] = []

    def zero(own: JanusFlowPipeline, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        assert own is pipe
        seen.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])}

    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    out = pipe("a star", callback_on_step_end=zero, **options).images
    assert seen == [0, 1] and not out.any()


def test_saved_and_opened(pipe: JanusFlowPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    opened = JanusFlowPipeline.from_pretrained(tmp_path / "saved", torch_dtype=torch.float32).to("cpu")
    assert JanusFlowPipeline(**opened.components).model is opened.model
    options: dict[str, Any] = {"num_inference_steps": 1, "output_type": "latent"}
    noise = torch.randn(1, *pipe("a", **options).images.shape[1:])
    assert torch.equal(opened("a", latents=noise, **options).images, pipe("a", latents=noise, **options).images)


def test_pictures_are_decoded_one_at_a_time(pipe: JanusFlowPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    codec = pipe.model.codec
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda latents: (sizes.append(len(latents)), decode(latents))[1])
    pipe(PROMPTS, num_inference_steps=1)
    pipe.enable_vae_slicing()
    pipe(PROMPTS, num_inference_steps=1)
    assert sizes == [2, 1, 1]


def test_with_offload_only_one_part_is_on_the_device(pipe: JanusFlowPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both devices are the CPU here; what is watched is who is sent where, and when."""
    model, moves = pipe.model, []
    monkeypatch.setattr(model.network, "to", lambda where: moves.append(("network", str(where))))
    monkeypatch.setattr(model.codec.vae, "to", lambda where: moves.append(("vae", str(where))))
    pipe.enable_model_cpu_offload(device="cpu")
    moves.clear()
    pipe("a star", num_inference_steps=1)
    assert [part for part, _ in moves] == ["network", "network", "vae", "vae"]
    moves.clear()
    model.ask("hi", max_new_tokens=2)
    assert "".join(model.stream("hi", max_new_tokens=2)) is not None
    assert {part for part, _ in moves} == {"network"} and len(moves) % 2 == 0
    monkeypatch.undo()
    model.to("cpu")
    assert model.device.type == "cpu"


def test_words_that_diffusers_programs_use(pipe: JanusFlowPipeline, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_inference_steps": 1, "generator": torch.Generator().manual_seed(1)}
    pictures = pipe("a star", output_type="pt", negative_prompt="", **options).images
    options["generator"].manual_seed(1)
    array = pipe("a star", output_type="np", negative_prompt=[""], **options).images
    assert pictures.shape[1] == 3 and torch.equal(pictures.permute(0, 2, 3, 1), torch.from_numpy(array))
    seen: list[Any] = []
    pipe(
        "a star",
        num_inference_steps=1,
        callback_on_step_end=lambda pipe, step, t, tensors: (seen.append(tensors), {})[1],
        callback_on_step_end_tensor_inputs=["latents"],
    )
    assert seen[0].keys() == {"latents"}
    pipe.save_pretrained(tmp_path)
    half = JanusFlowPipeline.from_pretrained(tmp_path, use_safetensors=True).to("cpu", torch.bfloat16)
    assert half.dtype == half.vae.dtype == torch.bfloat16
    assert half.to(torch.float32).dtype == torch.float32
    assert half.tokenizer.encode("a star")
    pipe.enable_attention_slicing()
    pipe.enable_vae_tiling()
    assert pipe.vae.use_tiling
    pipe.disable_vae_tiling()
    assert not pipe.vae.use_tiling
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert pipe("a star", num_inference_steps=1).images[0].size == (64, 64)


def test_a_vae_that_is_opened_while_it_draws_can_be_cast_and_moved() -> None:
    pipe = JanusFlowPipeline.from_pretrained("tiny")
    pipe.set_progress_bar_config(disable=True)
    pipe("a star", num_inference_steps=1)
    pipe.to(torch.bfloat16).to(torch.float32)
    pipe.enable_model_cpu_offload(device="cpu")
    assert pipe("a star", num_inference_steps=1).images


def test_casting_warns_of_no_modules_that_stay_float32(caplog: pytest.LogCaptureFixture) -> None:
    vae = JanusFlowPipeline.from_pretrained("tiny").vae
    diffusers_logging.add_handler(caplog.handler)
    try:
        half = JanusFlowPipeline.from_pretrained("tiny", dtype=torch.bfloat16, vae=vae)
        half.to(torch.float32)
        assert half.dtype == half.vae.dtype == torch.float32 and not caplog.messages
    finally:
        diffusers_logging.remove_handler(caplog.handler)


def test_more_words_that_diffusers_programs_use(pipe: JanusFlowPipeline, tmp_path: Path) -> None:
    nothing = {"variant": None, "revision": None, "cache_dir": None}
    vae = JanusFlowPipeline.from_pretrained("tiny").vae
    half = JanusFlowPipeline.from_pretrained("tiny", dtype=torch.bfloat16, vae=vae, **nothing)
    assert half.dtype == torch.bfloat16 and vae.dtype == torch.float32 and half.vae is vae
    assert half("a star", num_inference_steps=1, progress=False).images
    half.to(torch.float32)
    half.save_pretrained(tmp_path, safe_serialization=True)
    options: dict[str, Any] = {"num_inference_steps": 1, "output_type": "np", "seed": 1}
    plain = pipe("a star", guidance_scale=1.0, **options).images
    for scale in (0, 0.5, None):
        assert (pipe("a star", guidance_scale=scale, progress=False, **options).images == plain).all()
    assert pipe("a star", num_inference_steps=1, decode_batch_size=1, mask=None).images
    for words, said in (
        ({"prompt": None}, "prompt is None"),
        ({"prompt": "a star", "eta": 0.0}, "call has no argument 'eta'"),
        ({"prompt": "a star", "steps": 3}, "did you mean num_inference_steps"),
        ({"prompt": "a star", "guidance_scale": -1}, "guidance"),
        ({"prompt": "a star", "output_type": "jpeg"}, "output_type is 'jpeg'; choose from pil, np, latent, pt"),
        ({"prompt": "a star", "mask": "mask.png", "mask_image": "mask.png"}, "give one of them"),
        ({"prompt": "a star", "callback_on_step_end": lambda *_: torch.zeros(1)}, "returned a Tensor"),
        ({"prompt": "a star", "callback_on_step_end": lambda *_: {"latent": 0}}, "did you mean latents"),
    ):
        with pytest.raises(ValueError, match=said):
            pipe(**words)
    assert pipe("a star", num_inference_steps=1, callback_on_step_end_tensor_inputs=None).images
    with pytest.raises(ValueError, match="safetensors alone"):
        pipe.save_pretrained(tmp_path, safe_serialization=False)


def test_a_vae_that_does_not_fit_is_refused() -> None:
    other = AutoencoderKL(latent_channels=16, block_out_channels=(8, 8), norm_num_groups=4)
    with pytest.raises(ValueError, match="vae 'AutoencoderKL' has 16 channels"):
        JanusFlowPipeline.from_pretrained("tiny", vae=other)
    with pytest.raises(ValueError, match="dtype is float16"):
        JanusFlowPipeline.from_pretrained("tiny", vae=JanusFlowPipeline.from_pretrained("tiny").vae.half())


def test_dtypes_have_names_too() -> None:
    assert JanusFlowPipeline.from_pretrained("tiny").to(dtype="bfloat16").dtype == torch.bfloat16


def test_what_it_refuses(pipe: JanusFlowPipeline) -> None:
    with pytest.raises(ValueError, match="negative_prompt"):
        pipe("a star", negative_prompt="blur")
    with pytest.raises(ValueError, match="dtype is float16"):
        pipe.to(torch.float16)
    with pytest.raises(ValueError, match="names 'noise_pred'; there are latents and prompt_embeds"):
        pipe("a star", callback_on_step_end_tensor_inputs=["noise_pred"])
    with pytest.raises(ValueError, match="decode_batch_size is 0"):
        pipe.model.generate("a star", decode_batch_size=0)
    with pytest.raises(ValueError, match="variant is given; from_pretrained here opens"):
        JanusFlowPipeline.from_pretrained("tiny", variant="fp16")
    with pytest.raises(ValueError, match="is a Janus model"):
        JanusFlowPipeline.from_pretrained(GOLDEN / "janus-small-a")


# --- diffusers' callbacks -------------------------------------------------------------------------------------------


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "kind", [SDCFGCutoffCallback, SDXLCFGCutoffCallback, SDXLControlnetCFGCutoffCallback, SD3CFGCutoffCallback]
)
def test_official_callbacks_end_guidance(pipe: JanusFlowPipeline, noise: Tensor, kind: Any) -> None:
    prompts = [*PROMPTS, "a"]
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent"}
    expected = pipe(prompts, latents=noise, guidance_interval=(0.0, 0.3), **options).images  # steps 0 and 1 of 4
    for cutoff in (kind(cutoff_step_ratio=None, cutoff_step_index=1), kind(cutoff_step_ratio=0.25)):
        found = pipe(prompts, latents=noise, callback_on_step_end=cutoff, batch_size=2, **options).images
        assert torch.allclose(found, expected, atol=1e-4)
        assert pipe.guidance_scale == 0 and not pipe.do_classifier_free_guidance and pipe.num_timesteps == 4
    several = MultiPipelineCallbacks([kind(cutoff_step_ratio=0.25)])
    assert torch.allclose(
        pipe(prompts, latents=noise, callback_on_step_end=several, **options).images, expected, atol=1e-4
    )
    free = pipe(prompts, latents=noise, **options).images
    assert not torch.allclose(free, expected, atol=1e-3), "guidance is on again in the next call"


def test_an_interrupt_runs_no_further_step(pipe: JanusFlowPipeline, noise: Tensor) -> None:
    seen: list[Tensor] = []

    def cancel(own: JanusFlowPipeline, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"])
        own._interrupt = step == 1
        return tensors

    options: dict[str, Any] = {"num_inference_steps": 5, "output_type": "latent", "latents": noise[:2]}
    found = pipe(PROMPTS, callback_on_step_end=cancel, **options).images
    assert len(seen) == 2 and torch.equal(found, seen[-1]) and pipe.interrupt
    whole = pipe(PROMPTS, **options).images
    assert not pipe.interrupt and not torch.equal(whole, found)


def test_a_callback_sees_the_prompts_and_cannot_replace_them(pipe: JanusFlowPipeline) -> None:
    shapes: list[torch.Size] = []

    def look(own: JanusFlowPipeline, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        shapes.append(tensors["prompt_embeds"].shape)
        return tensors

    options: dict[str, Any] = {"num_inference_steps": 1, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    pipe(PROMPTS, callback_on_step_end=look, **options)
    assert shapes[0][0] == 2 and shapes[0][2] == pipe.model.network.config.text_config.hidden_size
    with pytest.raises(ValueError, match="replaced prompt_embeds; JanusFlow reads its prompts before the first step"):
        pipe(PROMPTS, callback_on_step_end=lambda *a: {"prompt_embeds": a[3]["prompt_embeds"] + 1}, **options)
    with pytest.raises(ValueError, match="IPAdapterScaleCutoffCallback; JanusFlow has no IP adapter"):
        pipe("a star", callback_on_step_end=IPAdapterScaleCutoffCallback(cutoff_step_ratio=0.5))


def test_its_outputs_are_pictures_to_start_from(pipe: JanusFlowPipeline) -> None:
    start: dict[str, Any] = {"num_inference_steps": 2, "seed": 0}
    again: dict[str, Any] = {"num_inference_steps": 2, "strength": 0.5, "seed": 1, "output_type": "latent"}
    expected = pipe(PROMPTS, image=pipe(PROMPTS, **start).images, **again).images
    for output_type in ("np", "pt", "latent"):
        images = pipe(PROMPTS, output_type=output_type, **start).images
        found = pipe(PROMPTS, image=images, **again).images
        if output_type != "latent":  # whose VAE, a random one, does not give latents back
            assert (found - expected).abs().mean() < 0.05, output_type
        mask = torch.zeros(1, 1, 64, 64)
        mask[..., 32:] = 1
        for given in (mask, mask.numpy()[:, 0], mask[0, 0].bool().numpy()):
            pasted = pipe(PROMPTS, image=images, mask_image=given, **{**again, "output_type": "np"}).images
            pixels = {
                "np": lambda images: images,
                "pt": lambda images: images.permute(0, 2, 3, 1).numpy(),
                "latent": lambda images: pipe.model.codec.decode(images).permute(0, 2, 3, 1).numpy() / 2 + 0.5,
            }[output_type](images)
            assert np.abs(pasted[:, :, :32] - pixels[:, :, :32]).max() <= 1 / 255
