"""g_dec: turns the LLM's states at the image tokens, and g_enc's skip, into the velocity of the latent.

Shapes: B pictures, (h, w) cells of the ConvNeXt blocks, (h/m, w/m) image tokens (m is `generation_merge_size`),
(H, W) = (h, w) * patch latent cells, D width of the LLM.
"""

from __future__ import annotations

import itertools
import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from janusflow.config import JanusFlowConfig
from janusflow.model.convnext import ChannelRMSNorm, ConvNextBlock


class Float32Conv(nn.Conv2d):
    """A convolution that computes in float32, whatever the weights' dtype and a surrounding autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())


class Unpatchify(nn.Module):
    """RMSNorm, 1x1 convolution, pixel shuffle: doubles height and width. (B, C, h, w) -> (B, C', 2h, 2w)."""

    def __init__(self, channels: int, out_channels: int, *, norm_eps: float, bias: bool) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(channels, norm_eps)
        self.conv = Float32Conv(channels, 4 * out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32; the small convolution also runs in float32, so that the velocity is not rounded."""
        return F.pixel_shuffle(self.conv(self.norm(x)), 2)


class GenerationDecoder(nn.Module):
    """Norm and linear map of the LLM states, norm, concatenation of the skip, ConvNeXt blocks, pixel shuffles."""

    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__()
        llm_width, eps = config.text_config.hidden_size, config.generation_norm_eps
        skip_width, bias = config.generation_encoder_width, config.generation_use_bias
        inner_width = config.generation_decoder_width + skip_width
        self.norm = LlamaRMSNorm(llm_width, config.text_config.rms_norm_eps)
        self.merge_size = config.generation_merge_size
        self.aligner = nn.Linear(llm_width, config.generation_decoder_width * self.merge_size**2)
        self.inner_norm = LlamaRMSNorm(config.generation_decoder_width, eps)
        self.blocks = nn.ModuleList(
            ConvNextBlock(inner_width, llm_width, norm_eps=eps, bias=bias)
            for _ in range(config.generation_decoder_depth)
        )
        doublings = int(math.log2(config.latent_patch_size))
        widths = [inner_width, *[skip_width] * (doublings - 1), config.latent_channels]
        self.unpatchify = nn.ModuleList(
            Unpatchify(before, after, norm_eps=eps, bias=bias) for before, after in itertools.pairwise(widths)
        )

    def forward(self, states: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        """Compute the velocity from the LLM's states.

        Args:
            states: (B, h/m * w/m, D) last hidden states (after the LLM's final norm) at the image tokens.
            skip: (B, C, h, w) and time: (B, D) from `EncodedLatent`.

        Returns:
            (B, latent channels, H, W) float32.
        """
        m = self.merge_size
        x = self.aligner(self.norm(states))
        x = rearrange(x, "b (h w) (p q c) -> b (h p) (w q) c", h=skip.shape[-2] // m, p=m, q=m)
        x = rearrange(self.inner_norm(x), "b h w c -> b c h w")
        x = torch.cat([x.float(), skip], dim=1)
        for block in self.blocks:
            x = block(x, time)
        for double in self.unpatchify:
            x = double(x)
        return x
