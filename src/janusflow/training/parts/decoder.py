"""A small decoder that learns to decode latents as a VAE does: the layout of TAESD, distilled.

The latents come from pictures, with a little noise added, because generated latents never match a picture's exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janusflow.flow import standard_normal
from janusflow.training.parts.fit import FitConfig, Losses, fit, step_generator
from janusflow.training.parts.losses import reconstruction
from janusflow.vae import LatentCodec, SmallDecoder, SmallDecoderConfig

NOISE = 0.15  # largest deviation of the noise that is added to latents of about unit deviation


def decoder_config(codec: LatentCodec, *, width: int = 24, blocks: int = 2) -> SmallDecoderConfig:
    """Return the sizes of a small decoder for a VAE.

    Args:
        codec: the VAE.
        width: channels per level.
        blocks: residual blocks of every level except the last, which has one.
    """
    levels = len(codec.vae.config.block_out_channels)
    return SmallDecoderConfig(codec.channels, [width] * levels, [blocks] * (levels - 1) + [1])


def fit_decoder(
    codec: LatentCodec,
    config: SmallDecoderConfig,
    pictures: Callable[[int], Tensor],
    fitting: FitConfig,
    folder: Path,
    *,
    bank: int = 64,
    batch: int = 16,
    seed: int = 0,
) -> SmallDecoder:
    """Train a small decoder, or resume. The loss is |d| + 2 d^2 + |grad d|, d the difference from the VAE's output.

    Args:
        codec: the VAE, on the CPU. It encodes the bank once, and decodes the latents of each step.
        config: see `decoder_config`.
        pictures: function from a number to its pictures, (B, 3, H, W) in [-1, 1].
        fitting: see `FitConfig`.
        folder: folder of the run.
        bank: how many numbers are trained on.
        batch: pictures per step.
        seed: seed of weights, noise and order.
    """
    with torch.inference_mode():
        latents = torch.cat([codec.encode(pictures(number)) for number in range(bank)])
    torch.manual_seed(seed)
    module = config.build()

    def losses(model: Any, step: int) -> Losses:
        generator = step_generator(seed, step)
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        noise = standard_normal(latents[chosen].shape, generator)
        level = NOISE * torch.rand(batch, 1, 1, 1, generator=generator)
        given = latents[chosen].clone() + level * noise
        return reconstruction(model(given).float() - codec.decode(given).clone())

    return SmallDecoder(fit(module, losses, fitting, folder, title="small decoder"), config)
