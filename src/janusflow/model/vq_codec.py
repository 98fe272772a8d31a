"""The VQ codec of Janus outside the network: a frozen copy that converts pixels to codes and back.

Shapes: B pictures of S x S pixels, L codes each, K codes of the codebook of width W.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def code_distances(vq: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the encoder's vectors of pictures and their squared distances to all codes, both scaled to length 1.

    Args:
        vq: transformers' `JanusVQVAE`.
        pixels: (B, 3, S, S) in [-1, 1].

    Returns:
        (B, L, W) and (B, L, K), float32.
    """
    latents = vq.quant_conv(vq.encoder(pixels.to(vq.quant_conv.weight.dtype)))
    found = F.normalize(latents.flatten(2).transpose(1, 2).float(), dim=-1)
    every = torch.arange(vq.quantize.embedding.num_embeddings, device=latents.device)
    codes = F.normalize(vq.quantize.embedding(every).float(), dim=-1)  # called, so that offloaded weights load
    with torch.autocast(found.device.type, enabled=False):
        return found, found.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * found @ codes.T


class VqCodec:
    """A copy of a network's codec.

    Args:
        vq: transformers' `JanusVQVAE`.
    """

    makes: ClassVar = "codes"
    settings: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, vq: nn.Module) -> None:
        self.weights: Any = copy.deepcopy(vq).eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, S, S) in [-1, 1] to codes (B, L). Autocast is disabled, or codes would differ."""
        with torch.autocast(pixels.device.type, enabled=False):
            return code_distances(self.weights, pixels)[1].argmin(dim=-1)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (B, L) to pixels (B, 3, S, S), clipped to [-1, 1], float32."""
        pixels: Tensor = self.weights.decode(codes).float()
        return pixels.clip(-1, 1)
