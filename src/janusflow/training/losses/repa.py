"""L_REPA: the LLM's states at the tokens of a noisy picture approach f_enc's features of the clean one.

Shapes: M pictures, L image tokens of m x m cells (`generation_merge_size`), D width of the LLM, W width of f_enc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from janusflow.config import JanusFlowConfig
from janusflow.data.samples import Sample
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.training.losses.term import Forward, LossConfig, Term
from janusflow.training.packing import Pack


class RepaHead(nn.Sequential):
    """h: a three-layer MLP from the LLM's width to f_enc's, (M, L, D) -> (M, L*m*m, W). The export lacks it."""

    def __init__(self, config: JanusFlowConfig) -> None:
        width, features = config.text_config.hidden_size, config.vision_config.hidden_size
        m = config.generation_merge_size
        super().__init__(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, m**2 * features)
        )
        self.merge_size = m

    def forward(self, states: Tensor) -> Tensor:
        m, found = self.merge_size, super().forward(states)
        return rearrange(found, "b (h w) (p q f) -> b (h p w q) f", h=math.isqrt(found.shape[1]), p=m, q=m)


def repa_loss(projected: Tensor, features: Tensor) -> Tensor:
    """L_REPA = - sum over pictures of the mean over tokens of cos(h(q(z_t)), stop-gradient f_enc(x)).

    Args:
        projected: h of the states after the chosen block, (M, L*m*m, W).
        features: f_enc(x), of the same shape; no gradient flows into it, whether the tower learns or not.

    Returns:
        A scalar, float32, from -M to M; divide by the number of pictures.

    Raises:
        ValueError: if the two grids have different numbers of tokens.
    """
    if projected.shape != features.shape:
        raise ValueError(
            f"REPA compares token by token, but generation gives {tuple(projected.shape)} "
            f"and understanding {tuple(features.shape)}"
        )
    return -F.cosine_similarity(projected.float(), features.detach().float(), dim=-1).mean(dim=1).sum()


class Repa(Term):
    """Representation alignment of pictures to generate that are not anchored."""

    name, title, signed = "repa", "L_REPA", True
    attribute = "head"

    def check(self, sizes: JanusFlowConfig, config: LossConfig) -> None:
        blocks = sizes.text_config.num_hidden_layers
        if not 1 <= config.repa_block <= blocks:
            raise ValueError(f"repa_block is {config.repa_block}; the LLM has blocks 1 to {blocks}")
        cells = sizes.num_generation_tokens * sizes.generation_merge_size**2
        if sizes.num_understanding_tokens != cells:
            raise ValueError(
                f"REPA needs equal grids: understanding has {sizes.num_understanding_tokens} tokens, generation {cells}"
                + (" cells" if sizes.generation_merge_size > 1 else "")
            )

    def head(self, sizes: JanusFlowConfig) -> nn.Module:
        return RepaHead(sizes)

    def options(self, row: Pack) -> dict[str, Any]:
        return {} if row.pixels is None else {"output_hidden_states": True}

    def sum(self, seen: Forward) -> Tensor | None:
        if seen.latents is None:
            return None
        assert seen.head is not None and seen.output.hidden_states is not None
        at_pictures = seen.row.input_ids == GENERATION_TOKEN
        states = seen.output.hidden_states[seen.config.repa_block][at_pictures]  # the last ones are after the norm
        states = rearrange(states, "(m l) d -> m l d", m=len(seen.latents))
        features = _features(seen) if seen.features is None else seen.features
        free = slice(None) if seen.row.anchored is None else ~seen.row.anchored
        return repa_loss(seen.head(states[free]), features[free])

    def count(self, samples: Sequence[Sample]) -> float:
        return float(sum(sample.drawn is not None and not sample.anchored for sample in samples))


@torch.no_grad()
def _features(seen: Forward) -> Tensor:
    """f_enc(x) of the row's pictures to generate, (M, L, W)."""
    assert seen.row.pixels is not None
    dtype = seen.network.get_input_embeddings().weight.dtype
    features: Tensor = seen.network.understanding_encoder.features(seen.row.pixels.to(dtype))
    return features


TERM = Repa()
