"""Presets and the small decoder in `generate`: what they set, what is recorded, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow, settings_of
from janusflow.engine.generation import Sampling
from janusflow.engine.jobs import Job, run
from janusflow.evaluation.run.sweep import network_evaluations
from janusflow.interop.diffusers_pipeline import JanusFlowPipeline
from janusflow.presets import PRESETS, preset_of
from janusflow.vae import PREVIEW_DECODER, SmallDecoder, SmallDecoderConfig
from tests.conftest import GOLDEN, TOLERANCE, error

PROMPT = "a red circle above a blue square"


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture(scope="module")
def with_small(small_folder: Path, vae_folder: Path) -> JanusFlow:
    """The small model with a random small decoder."""
    torch.manual_seed(0)
    config = SmallDecoderConfig(4, [8] * 4, [1] * 4)
    opened = JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")
    return JanusFlow(opened.network, opened.processor, vae_folder, SmallDecoder(config.build(), config))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_settings_to_the_bit_and_so_is_its_record(small_model: JanusFlow, name: str) -> None:
    by_name = small_model.generate(PROMPT, seed=3, preset=name)[0]
    by_hand = small_model.generate(PROMPT, seed=3, **asdict(PRESETS[name]))[0]
    assert same(by_name, by_hand) and settings_of(by_name) == settings_of(by_hand)
    assert same(small_model.generate(**settings_of(by_name))[0], by_name)
    assert settings_of(by_name)["solver"] == PRESETS[name].solver


def test_presets_give_different_pictures_and_exact_is_the_default(small_model: JanusFlow) -> None:
    made = [small_model.generate(PROMPT, seed=3, preset=name)[0] for name in (None, *PRESETS)]
    assert same(made[0], made[1])
    assert not same(made[1], made[2]) and not same(made[2], made[3])


def test_one_setting_of_a_preset_is_replaced(small_model: JanusFlow) -> None:
    picture = small_model.generate(PROMPT, seed=3, preset="fast", num_inference_steps=2)[0]
    recorded = settings_of(picture)
    assert recorded["num_inference_steps"] == 2 and recorded["solver"] == PRESETS["fast"].solver


def test_presets_hold_for_pictures_to_start_from(small_model: JanusFlow, picture: Path) -> None:
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[:, :20] = 255
    given: dict[str, Any] = {"image": picture, "mask": mask, "strength": 0.5, "seed": 1}
    fast = small_model.generate(PROMPT, preset="fast", **given)[0]
    assert same(fast, small_model.generate(PROMPT, **given, **asdict(PRESETS["fast"]))[0])
    assert same(fast, small_model.generate(**settings_of(fast), image=picture, mask=mask)[0])


def test_through_diffusers_call_a_preset_sets_the_steps(small_model: JanusFlow) -> None:
    pipe = JanusFlowPipeline(small_model)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(PROMPT, preset="fast", seed=3).images[0]
    assert same(picture, small_model.generate(PROMPT, preset="fast", seed=3)[0])
    assert pipe.num_timesteps == PRESETS["fast"].num_inference_steps


@torch.inference_mode()
def test_a_picture_is_the_same_alone_and_in_a_batch_of_other_presets(small_model: JanusFlow) -> None:
    def job(number: int, name: str) -> Job:
        prefix = small_model.network.encode_prompts(*small_model.processor.encode_prompts([PROMPT]))
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(number))
        return Job(prefix, noise, Sampling(**preset_of(name).sampling()))

    alone = [run(small_model.network, [job(*one)])[0] for one in enumerate(PRESETS)]
    together = run(small_model.network, [job(*one) for one in enumerate(PRESETS)])
    assert all(error(one, two) <= TOLERANCE for one, two in zip(alone, together, strict=True))


def test_each_preset_costs_less_than_the_one_before_and_fast_a_sixth() -> None:
    costs = [network_evaluations({**asdict(PRESETS[name]), "guidance_scale": 2.0}) for name in PRESETS]
    assert costs[0] == 60
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] <= 0.17 * 60


@pytest.mark.parametrize("name", ["exact", "fast"])
def test_resolving_gives_the_same_settings_as_generating(small_model: JanusFlow, name: str) -> None:
    resolved = small_model.resolve(PROMPT, {"preset": name, "shift": 1.25})
    made = settings_of(small_model.generate(PROMPT, seed=3, preset=name, shift=1.25)[0])
    assert {key: resolved[key] for key in made if key in resolved} == {
        key: value for key, value in made.items() if key not in ("prompts", "seed")
    }


def test_the_small_decoder_decodes_where_it_is_asked_for(with_small: JanusFlow) -> None:
    settings: dict[str, Any] = {"seed": 3, "num_inference_steps": 2}
    latents = with_small.generate(PROMPT, output_type="latent", **settings)
    small = with_small.generate(PROMPT, decoder="small", output_type="np", **settings)
    wanted = (with_small.small_decoder.decode(latents) + 1) / 2
    assert np.allclose(small, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    picture = with_small.generate(PROMPT, decoder="small", **settings)[0]
    assert settings_of(picture)["decoder"] == "small"
    assert same(with_small.generate(**settings_of(picture))[0], picture)
    assert "decoder" not in settings_of(with_small.generate(PROMPT, **settings)[0])
    assert torch.equal(with_small.decode(latents, "preview"), with_small.small_decoder.decode(latents))


def test_without_a_small_decoder_previews_come_from_the_vae(small_model: JanusFlow) -> None:
    latents = torch.zeros(1, 4, 8, 8)
    assert torch.equal(small_model.decode(latents, "preview"), small_model.codec.decode(latents))
    with pytest.raises(ValueError, match="decoder is 'small', but model .* has no preview_decoder; use decoder='vae'"):
        small_model.generate(PROMPT, decoder="small", num_inference_steps=1)


def test_the_small_decoder_is_saved_with_the_model(with_small: JanusFlow, tmp_path: Path, vae_folder: Path) -> None:
    with_small.save_pretrained(tmp_path / "model")
    again = JanusFlow.from_pretrained(tmp_path / "model", device="cpu")
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(again.decode(latents, "small"), with_small.decode(latents, "small"))
    other = JanusFlow.from_pretrained(tmp_path / "model", vae=vae_folder, device="cpu")
    assert other.preview_decoder is None, "it was learned from the model's own VAE"
    (tmp_path / "model" / PREVIEW_DECODER / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        JanusFlow.from_pretrained(tmp_path / "model", device="cpu").generate(PROMPT, decoder="small")


def test_a_janus_takes_no_preset() -> None:
    janus = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
    with pytest.raises(ValueError, match="preset: not for a Janus model, which generates code by code"):
        janus.generate(PROMPT, preset="fast")


def test_the_digest_covers_the_small_decoder(with_small: JanusFlow) -> None:
    before = with_small.identity()["digest"]
    with torch.no_grad():
        next(with_small.small_decoder.module.parameters()).mul_(1.5)
    assert with_small.identity()["digest"] != before
