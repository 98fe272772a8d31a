"""The ConvNeXt-V2 block that g_enc and g_dec are built from, conditioned on time.

Between blocks, x is float32 whatever the weights' dtype: guidance subtracts two nearly equal velocities, and rounding x
to bfloat16 after every block would show in the difference.

Shapes: B pictures, C channels, (h, w) the token grid, D width of the time embedding.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

GRN_EPS = 1e-6
EXPANSION = 4


class ChannelRMSNorm(LlamaRMSNorm):
    """RMSNorm over the channels of an image-shaped tensor, (B, C, h, w) -> (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GlobalResponseNorm(nn.Module):
    """GRN of ConvNeXt V2 (arXiv 2301.00808): x * (1 + gamma * ||x||_hw / mean_C ||x||_hw) + beta.

    Takes and returns (B, h, w, C) of any dtype; computes in float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)  # (B, 1, 1, C)
        response = norm / (norm.mean(dim=-1, keepdim=True) + GRN_EPS)
        return torch.addcmul(self.bias.float(), self.weight * response + 1, x.float()).to(x.dtype)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7 -> RMSNorm -> C to 4C -> GELU -> GRN -> 4C to C -> residual -> scale and shift by time."""

    def __init__(self, channels: int, time_width: int, *, norm_eps: float, bias: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels, bias=bias)
        self.norm = LlamaRMSNorm(channels, norm_eps)
        self.expand = nn.Linear(channels, EXPANSION * channels, bias=bias)
        self.response_norm = GlobalResponseNorm(EXPANSION * channels)
        self.contract = nn.Linear(EXPANSION * channels, channels, bias=bias)
        self.modulation = nn.Linear(time_width, 2 * channels, bias=bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (B, C, h, w) float32, time: (B, D) in the weights' dtype -> (B, C, h, w) float32."""
        y = self.depthwise(x.to(self.depthwise.weight.dtype))
        y = self.norm(rearrange(y, "b c h w -> b h w c").contiguous())  # else linear layers copy it, slowly in bfloat16
        y = self.contract(self.response_norm(F.gelu(self.expand(y))))
        x = x + rearrange(y, "b h w c -> b c h w")
        scale, shift = rearrange(self.modulation(F.silu(time)).float(), "b c -> b c 1 1").chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)
