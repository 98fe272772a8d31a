"""g_enc: turns a noisy latent and its time into the LLM's input embeddings, and the long skip to g_dec.

Shapes: B pictures, (H, W) latent cells, (h, w) = (H, W) / patch cells of the ConvNeXt blocks, (h/m, w/m) image tokens
(m is `generation_merge_size`), D width of the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from einops import rearrange
from torch import Tensor, nn

from janusflow.config import JanusFlowConfig
from janusflow.model.convnext import ConvNextBlock

TIME_SCALE = 1000.0  # the only place that scales t in [0, 1] to the sinusoid's argument


@dataclass
class EncodedLatent:
    """Output of g_enc for z_t.

    Attributes:
        tokens: (B, h/m * w/m, D) input embeddings of the image tokens, in row-major order.
        time: (B, D) time embedding: the token before the image tokens, and the condition of every ConvNeXt block.
        skip: (B, C, h, w) float32, g_enc's output before the linear map, passed on to g_dec.
    """

    tokens: Tensor
    time: Tensor
    skip: Tensor


class GenerationEncoder(nn.Module):
    """Patch convolution, time-conditioned ConvNeXt blocks, linear map to the LLM's width."""

    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__()
        width, llm_width = config.generation_encoder_width, config.text_config.hidden_size
        bias = config.generation_use_bias
        self.sinusoid = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, llm_width, sample_proj_bias=bias)
        patch = config.latent_patch_size
        self.patchify = nn.Conv2d(config.latent_channels, width, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList(
            ConvNextBlock(width, llm_width, norm_eps=config.generation_norm_eps, bias=bias)
            for _ in range(config.generation_encoder_depth)
        )
        self.merge_size = config.generation_merge_size
        self.aligner = nn.Linear(width * self.merge_size**2, llm_width)

    def embed_time(self, t: Tensor) -> Tensor:
        """MLP(sinusoid(1000 t)), cosines first. t: (B,) in [0, 1] -> (B, D)."""
        sinusoid = self.sinusoid(TIME_SCALE * t)
        return self.time_embedding(sinusoid.to(self.patchify.weight.dtype))

    def forward(self, latent: Tensor, t: Tensor) -> EncodedLatent:
        """Encode z_t.

        Args:
            latent: (B, C, H, W), any floating dtype; cast to the weights' dtype.
            t: (B,) in [0, 1], 0 noise and 1 data.
        """
        dtype = self.patchify.weight.dtype
        time = self.embed_time(t)
        x = self.patchify(latent.to(dtype)).float()
        for block in self.blocks:
            x = block(x, time)
        m = self.merge_size
        merged = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=m, q=m)
        return EncodedLatent(tokens=self.aligner(merged.to(dtype).contiguous()), time=time, skip=x)
