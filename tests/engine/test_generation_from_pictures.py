"""Image-to-image and inpainting start on the path of the given picture, and stay on it where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.generation import Sampling
from janusflow.engine.inpainting import fit_picture
from janusflow.model import JanusFlowForConditionalGeneration
from tests.conftest import TOLERANCE, error

PROMPT = "a red circle above a blue square"


def test_image_to_image_starts_on_the_path_of_the_picture(small_model: JanusFlow, scene: Image.Image) -> None:
    known = small_model.codec.encode(fit_picture(scene, 64, 64)[None])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    starts: list[Tensor] = []
    original = JanusFlowForConditionalGeneration.velocity

    def note(self: Any, x: Tensor, t: Tensor, *prefix: Any) -> Tensor:
        starts.append(x[:1].clone())
        assert float(t[0]) >= 0.75
        return original(self, x, t, *prefix)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JanusFlowForConditionalGeneration, "velocity", note)
        small_model.generate(
            PROMPT, image=scene, strength=0.25, latents=noise, num_inference_steps=8, output_type="latent"
        )
    assert len(starts) == 2  # a quarter of the path in a quarter of the steps
    torch.testing.assert_close(starts[0], 0.75 * known + 0.25 * noise)


def test_a_smaller_strength_stays_nearer_to_the_picture(small_model: JanusFlow, scene: Image.Image) -> None:
    known = small_model.codec.encode(fit_picture(scene, 64, 64)[None])
    distances = [
        float(
            (small_model.generate(PROMPT, image=scene, strength=s, seed=0, num_inference_steps=20, output_type="latent")
             - known).norm()
        )
        for s in (0.05, 0.3, 1.0)
    ]  # fmt: skip
    assert distances == sorted(distances)


def test_inpainting_keeps_what_is_not_masked_on_its_path(small_model: JanusFlow, scene: Image.Image) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    known = small_model.codec.encode(fit_picture(scene, 64, 64)[None])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    path: list[tuple[float, Tensor]] = []
    result = small_model.generate(
        PROMPT,
        image=scene,
        mask=mask,
        latents=noise,
        num_inference_steps=4,
        solver="heun",
        output_type="latent",
        callback_on_step_end=lambda model, step, t, state: path.append((t, state["latents"])),
    )
    assert [t for t, _ in path] == [0.25, 0.5, 0.75, 1.0]
    for t, x in path:
        torch.testing.assert_close(x[..., :4], (t * known + (1 - t) * noise)[..., :4])
    assert torch.equal(result[..., :4], known[..., :4])
    assert not torch.allclose(result[..., 4:], known[..., 4:])
    plain = small_model.generate(
        PROMPT, image=scene, strength=1.0, latents=noise, num_inference_steps=4, solver="heun", output_type="latent"
    )
    assert not torch.allclose(result[..., 4:], plain[..., 4:], atol=1e-4)  # the kept half was seen on the way


def test_one_picture_per_prompt_or_per_painting(small_model: JanusFlow, scene: Image.Image) -> None:
    other = Image.new("RGB", (64, 64), (0, 0, 200))
    settings: dict[str, Any] = {"strength": 0.2, "seed": 0, "num_inference_steps": 10, "output_type": "latent"}
    alone = [small_model.generate(PROMPT, image=picture, **settings) for picture in (scene, other)]
    both = small_model.generate([PROMPT, PROMPT], image=[scene, other], **settings)
    assert error(both, torch.cat(alone)) <= TOLERANCE
    with pytest.raises(ValueError, match="3 images were given for 2 prompts"):
        small_model.generate([PROMPT, PROMPT], image=[scene] * 3, **settings)


def test_latents_of_another_size_are_refused_as_such(small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match=r"image holds latents of \(4, 4, 8\); those of this request are \(4, 8, 8\)"):
        small_model.generate(PROMPT, image=torch.randn(4, 4, 8), num_inference_steps=1)
    with_alpha = torch.rand(4, 40, 80)
    assert small_model.generate(PROMPT, image=with_alpha, num_inference_steps=1)[0].size == (64, 64)


def test_a_shorter_path_takes_fewer_steps() -> None:
    assert len(Sampling(num_inference_steps=30, strength=0.5).times()) == 16
    assert len(Sampling(num_inference_steps=30, strength=0.01).times()) == 2
