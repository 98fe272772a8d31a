"""Painting: batches, seeds, sizes, pictures to start from, and every refusal."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.generation import Sampling, choose_seeds
from janusflow.engine.inpainting import fit_mask, fit_picture, latent_mask
from janusflow.model import JanusFlowForConditionalGeneration, PromptPrefix
from tests.conftest import TOLERANCE, error

PROMPT = "a red circle above a blue square"
FAST: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent"}


@pytest.fixture
def scene(tmp_path: Path) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))


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


def test_all_solvers_and_grids_approach_the_same_picture(tiny_model: JanusFlow) -> None:
    """On the shipped model: a random one's velocity swings too fast in t for any of them.

    Of a noise that stands between two pictures solvers may come to different ones; so it is the median of eight. The
    fine path keeps off the twelfths at which the model was trained on its own states: its velocity is not smooth there.
    """
    noise = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {"latents": noise, "output_type": "latent", "guidance_scale": 1.0}
    prompts = [PROMPT] * len(noise)
    fine = tiny_model.generate(prompts, num_inference_steps=120, solver="heun", shift=2.0, **arguments)
    for solver, shift in (("euler", 1.0), ("heun", 1.0), ("midpoint", 1.0), ("ab2", 1.0), ("ab2", 2.0)):
        found = tiny_model.generate(prompts, num_inference_steps=40, solver=solver, shift=shift, **arguments)
        far = (found - fine).flatten(1).norm(dim=1) / (fine - noise).flatten(1).norm(dim=1)
        assert float(far.median()) < (0.15 if solver == "euler" else 0.05), (solver, shift)


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


# --- from a picture -------------------------------------------------------------------------------------------------


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


def test_a_cell_with_any_bright_pixel_is_repainted() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.putpixel((17, 9), 255)
    grid = latent_mask(fit_mask(mask, 64, 64), 8)
    assert grid.shape == (1, 8, 8)
    assert grid.sum() == 1
    assert grid[0, 1, 2] == 1


def test_a_mask_is_cropped_like_its_picture_and_keeps_thin_strokes() -> None:
    picture, mask = Image.new("RGB", (800, 400)), Image.new("L", (800, 400), 0)
    picture.paste((255, 0, 0), (600, 0, 800, 400))  # right of the middle square that is kept
    picture.paste((255, 255, 255), (420, 210, 421, 211))
    mask.paste(255, (600, 0, 800, 400))
    mask.putpixel((420, 210), 255)  # a stroke of one pixel, where the picture is white
    grid = latent_mask(fit_mask(mask, 64, 64), 8)
    assert grid.nonzero().tolist() == [[0, 4, 4]]
    assert fit_picture(picture, 64, 64)[1].argmax() // 64 // 8 == 4


def test_a_very_long_picture_is_cropped_before_it_is_enlarged() -> None:
    assert fit_picture(Image.new("RGB", (2, 1_000_000)), 64, 64).shape == (3, 64, 64)


def test_a_picture_is_cropped_not_squeezed() -> None:
    wide = Image.new("RGB", (200, 100), (255, 0, 0))
    wide.paste((0, 0, 255), (50, 0, 150, 100))
    pixels = fit_picture(wide, 32, 32)
    assert pixels.shape == (3, 32, 32)
    assert torch.equal(pixels[:, :, 2:-2], torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1).expand(3, 32, 28))


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": ""}, "prompt is ''"),
        ({"prompts": " \n"}, "prompt is"),
        ({"prompts": []}, "no prompt was given"),
        ({"prompts": ["a", None]}, "prompt is None"),
        ({"prompts": "star " * 3000}, "a prompt has .* tokens"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
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
        ({"strength": 0.5}, "need an image"),
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


def test_seeds() -> None:
    assert choose_seeds(7, 2, 2) == [7, 8, 7, 8]
    assert choose_seeds([1, 2], 1, 2) == [1, 2]
    assert len(set(choose_seeds(None, 1, 4))) == 4


def test_a_shorter_path_takes_fewer_steps() -> None:
    assert len(Sampling(num_inference_steps=30, strength=0.5).times()) == 16
    assert len(Sampling(num_inference_steps=30, strength=0.01).times()) == 2


# --- the VAE --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("interval", [np.array([0.1, 0.9]), torch.tensor([0.1, 0.9], dtype=torch.float64), [0.1, 0.9]])
def test_numbers_of_other_libraries_are_taken_as_pythons(small_model: JanusFlow, interval: Any) -> None:
    settings: dict[str, Any] = {"seed": 0, "num_inference_steps": 2}
    expected = small_model.generate("a star", guidance_interval=(0.1, 0.9), guidance_scale=2.5, **settings)[0]
    found = small_model.generate("a star", guidance_interval=interval, guidance_scale=np.float32(2.5), **settings)[0]
    assert found.tobytes() == expected.tobytes()
    assert json.loads(found.info["janusflow"]) == json.loads(expected.info["janusflow"])


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
