"""A small VAE with factor 4 or another power of two. Its scaling factor is measured when its latents are final.

Then the decoder may be trained further, on latents with noise: generated latents never match a picture's exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from janusflow.config import JanusFlowConfig
from janusflow.flow import standard_normal
from janusflow.training.parts.config import VaeConfig
from janusflow.training.parts.data import Batches
from janusflow.training.parts.fit import Losses, fit, step_generator
from janusflow.training.parts.losses import reconstruction

FIRST_LOG_VARIANCE = -4.0  # of the posterior
MEASURED_STEPS = 32  # steps whose latents give the scaling factor
REDUCTIONS = (2, 4)  # of latents and pictures in the equivariance term


def new_vae(config: VaeConfig, sizes: JanusFlowConfig) -> AutoencoderKL:
    """Create a VAE with random weights.

    Raises:
        ValueError: if its number of levels does not fit the latents of the network, or these cannot be reduced.
    """
    levels = len(config.channels)
    if 2 ** (levels - 1) != sizes.latent_downscale:
        raise ValueError(f"vae.channels has {levels} levels, but latents are {sizes.latent_downscale} times smaller")
    if config.equivariance and sizes.latent_size % REDUCTIONS[-1]:
        side = f"latents have a side of {sizes.latent_size}"
        raise ValueError(f"vae.equivariance is {config.equivariance}, but {side}; expected a multiple of 4, or 0")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=sizes.latent_channels,
        norm_num_groups=8,
        sample_size=sizes.image_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():  # with the noise from random weights, nothing is learned at first
        vae.encoder.conv_out.weight[sizes.latent_channels :] = 0
        vae.encoder.conv_out.bias[sizes.latent_channels :] = FIRST_LOG_VARIANCE
    return vae


def vae_losses(vae: Any, pixels: Tensor, config: VaeConfig, generator: torch.Generator) -> Losses:
    """R(d) + equivariance R(d') + kl KL, with R(d) = |d| + 2 d^2 + edges |grad d|.

    d = decode(z) - x is the error of a sample z of the posterior, and d' = decode(pool(z)) - pool(x) is the error of
    reduced latents as a reduced picture. Latents that can be reduced have most of their variance in low frequencies,
    so a flow can generate the outline first and details later (arXiv 2502.09509, 2502.14831).

    Args:
        vae: an `AutoencoderKL`.
        pixels: x, (B, 3, H, W) in [-1, 1].
        config: weights of the terms.
        generator: random generator of the sample, and of the factor by which it is reduced.
    """
    posterior = vae.encode(pixels).latent_dist
    noise = standard_normal(posterior.mean.shape, generator).to(pixels.device)
    latents = posterior.mean + posterior.std * noise
    found = reconstruction(vae.decode(latents).sample.float() - pixels, edges=config.edges)
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    loss = found["loss"] + config.kl * kl
    if config.equivariance:
        factor = REDUCTIONS[int(torch.randint(len(REDUCTIONS), (), generator=generator))]
        small = vae.decode(F.avg_pool2d(latents, factor)).sample.float() - F.avg_pool2d(pixels, factor)
        found["reduced"] = reconstruction(small, edges=config.edges)["loss"]
        loss = loss + config.equivariance * found["reduced"]
    return {**found, "loss": loss, "kl": kl}


def decoder_losses(vae: Any, pixels: Tensor, config: VaeConfig, generator: torch.Generator) -> Losses:
    """R(decode(z + s n) - x) for samples z of the posterior, n ~ N(0, I) and s ~ U(0, noise) deviations of the latents.

    Args:
        vae: an `AutoencoderKL` with its scaling factor, one over the deviation of its latents.
        pixels: x, (B, 3, H, W) in [-1, 1].
        config: weight of the edges in R, see `vae_losses`, and the noise.
        generator: random generator of the sample and of the noise.
    """
    assert config.decoder is not None
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    first, second = (standard_normal(posterior.mean.shape, generator) for _ in range(2))
    scales = torch.rand(len(pixels), 1, 1, 1, generator=generator) * config.decoder.noise / vae.config.scaling_factor
    latents = posterior.mean + posterior.std * first.to(pixels.device) + (scales * second).to(pixels.device)
    return reconstruction(vae.decode(latents).sample.float() - pixels, edges=config.edges)


def fit_vae(
    config: VaeConfig, sizes: JanusFlowConfig, batch: Batches, folder: Path, *, seed: int, device: torch.device
) -> AutoencoderKL:
    """Train a VAE, or resume its training.

    Args:
        config: see `VaeConfig`.
        sizes: dimensions of the network that will use it.
        batch: function that gives the pictures of a step.
        folder: folder of the run.
        seed: seed of its weights and noise.
        device: device to train on.
    """
    torch.manual_seed(seed)
    vae = new_vae(config, sizes).to(device)

    def losses(model: Any, step: int) -> Losses:
        return vae_losses(model, pixels_of(batch, step).to(device), config, step_generator(seed, step))

    vae = fit(vae, losses, config.fit, folder, title="VAE")
    with torch.inference_mode():
        steps = range(config.fit.steps, config.fit.steps + MEASURED_STEPS)
        found = [vae.encode(pixels_of(batch, step).to(device)).latent_dist.mean.cpu() for step in steps]
    latents = torch.cat(found)
    vae.register_to_config(scaling_factor=1 / latents.std().item(), shift_factor=latents.mean().item())
    if config.decoder is None:
        return vae
    decoder, before = config.decoder, config.fit.steps + MEASURED_STEPS
    vae.encoder.requires_grad_(False)

    def decoding(model: Any, step: int) -> Losses:
        pixels = pixels_of(batch, before + step).to(device)
        return decoder_losses(model, pixels, config, step_generator(seed + 1, step))

    return fit(vae, decoding, decoder.fit, folder / "decoder", title="VAE decoder")


def pixels_of(batch: Batches, step: int) -> Tensor:
    """Return the pictures of a step, (B, 3, H, W)."""
    return torch.stack([sample.drawn.pixels for sample in batch(step) if sample.drawn is not None])
