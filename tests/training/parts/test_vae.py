"""The VAE's losses, latents that can be reduced, and further training of the decoder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from janusflow.config import JanusFlowConfig, tiny
from janusflow.training.parts.config import VaeConfig, VaeDecoderConfig
from janusflow.training.parts.fit import FitConfig, step_generator
from janusflow.training.parts.vae import decoder_losses, fit_vae, new_vae, vae_losses

CONFIG = VaeConfig(FitConfig(steps=2, learning_rate=1e-3), channels=(8, 8, 8), kl=0.0, equivariance=2.0)


class Posterior:
    """A posterior without noise."""

    def __init__(self, mean: Tensor) -> None:
        self.latent_dist, self.mean = self, mean
        self.std, self.var, self.logvar = torch.zeros_like(mean), torch.ones_like(mean), torch.zeros_like(mean)


class Pooling:
    """Latents are pictures reduced by 4, scaled; the decoder enlarges them by repetition. Reducing changes nothing."""

    def encode(self, pixels: Tensor) -> Posterior:
        return Posterior(3 * F.avg_pool2d(pixels, 4))

    def decode(self, latents: Tensor) -> Tensor:
        self.sample = F.interpolate(latents / 3, scale_factor=4)
        return self


class Shuffling(Pooling):
    """Latents are pictures whose columns alternate in sign: no less is lost, but reduced latents are nearly zero."""

    def encode(self, pixels: Tensor) -> Posterior:
        found = super().encode(pixels).mean
        return Posterior(found * torch.tensor([1.0, -1.0]).repeat(found.shape[-1] // 2))

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents * torch.tensor([1.0, -1.0]).repeat(latents.shape[-1] // 2))


def flat(side: int) -> Tensor:
    """One picture of one color, whose reconstruction loses nothing."""
    return torch.full((1, 3, side, side), 0.5)


def test_latents_that_can_be_reduced_cost_nothing_and_others_do() -> None:
    losses = {kind: vae_losses(kind(), flat(64), CONFIG, step_generator(0, 0)) for kind in (Pooling, Shuffling)}
    assert losses[Pooling]["loss"] == pytest.approx(0.0, abs=1e-6)
    assert losses[Shuffling]["absolute"] == pytest.approx(0.0, abs=1e-6)
    # pool(z) is 0, so |d'| = 0.5 and d'^2 = 0.25
    assert losses[Shuffling]["loss"] == pytest.approx(2.0 * (0.5 + 2 * 0.25))
    without = vae_losses(Shuffling(), flat(64), replace(CONFIG, equivariance=0.0), step_generator(0, 0))
    assert without["loss"] == pytest.approx(0.0, abs=1e-6) and "reduced" not in without


def test_latents_are_reduced_by_2_and_by_4() -> None:
    sides = set()

    class Recording(Pooling):
        def decode(self, latents: Tensor) -> Tensor:
            sides.add(latents.shape[-1])
            return super().decode(latents)

    for step in range(10):
        vae_losses(Recording(), flat(64), CONFIG, step_generator(0, step))
    assert sides == {16, 8, 4}


def test_latents_that_cannot_be_reduced_by_4_are_refused() -> None:
    sizes: JanusFlowConfig = tiny(300)
    new_vae(CONFIG, sizes)
    sizes.image_size = 40
    with pytest.raises(ValueError, match="latents have a side of 10; expected a multiple of 4, or 0"):
        new_vae(CONFIG, sizes)
    new_vae(replace(CONFIG, equivariance=0.0), sizes)


def test_the_decoder_alone_learns_from_latents_with_noise(tmp_path: Path) -> None:
    """Encoder and scaling are those of the same training without it, and a rerun trains nothing again."""
    fitting = FitConfig(steps=2, learning_rate=1e-2, warmup=0, ema=0.0)
    config = VaeConfig(fitting, batch_size=2, channels=(8, 8, 8))
    sizes, device = tiny(300), torch.device("cpu")

    def batch(step: int) -> list[Any]:
        pixels = torch.rand(2, 3, 64, 64, generator=step_generator(0, step)) * 2 - 1
        return [SimpleNamespace(drawn=SimpleNamespace(pixels=one)) for one in pixels]

    before = fit_vae(config, sizes, batch, tmp_path / "a", seed=0, device=device)
    config = replace(config, decoder=VaeDecoderConfig(fitting))
    after, again = (fit_vae(config, sizes, batch, tmp_path / "b", seed=0, device=device) for _ in range(2))
    weights, found = before.state_dict(), after.state_dict()
    changed = {name for name, value in weights.items() if not torch.equal(value, found[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert after.config.scaling_factor == before.config.scaling_factor and after.config.shift_factor is not None
    assert all(torch.equal(value, found[name]) for name, value in again.state_dict().items())


def test_noise_on_latents_is_relative_to_their_deviation() -> None:
    """A decoder that returns its latents: |n| is sqrt(2 / pi) on average, and s is 0.3 of their deviation."""
    shape, deviation = (400, 3, 8, 8), 5.0

    class Identity(Posterior):
        config = SimpleNamespace(scaling_factor=1 / deviation)

        def encode(self, pixels: Tensor) -> Posterior:
            return self

        def decode(self, latents: Tensor) -> Any:
            return SimpleNamespace(sample=latents)

    for noise, expected in ((0.0, 0.0), (0.6, 0.3 * deviation * math.sqrt(2 / math.pi))):
        config = replace(CONFIG, decoder=VaeDecoderConfig(CONFIG.fit, noise=noise))
        found = decoder_losses(Identity(torch.zeros(shape)), torch.zeros(shape), config, step_generator(0, 0))
        assert float(found["absolute"]) == pytest.approx(expected, rel=0.1, abs=1e-9)
