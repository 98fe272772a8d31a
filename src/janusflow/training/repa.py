"""REPA: the LLM's states at the tokens of a noisy picture are drawn towards f_enc's features of the clean one.

Shapes: M pictures, L image tokens, D width of the LLM, W width of f_enc.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from janusflow.config import JanusFlowConfig


class RepaHead(nn.Sequential):
    """h: a three-layer MLP from the LLM's width to f_enc's, (M, L, D) -> (M, L, W). Not part of the model it trains."""

    def __init__(self, config: JanusFlowConfig) -> None:
        width, features = config.text_config.hidden_size, config.vision_config.hidden_size
        super().__init__(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, features)
        )


def repa_loss(projected: Tensor, features: Tensor) -> Tensor:
    """L_REPA = - sum over pictures of the mean over tokens of cos(h(q(z_t)), stop-gradient f_enc(x)).

    Args:
        projected: h of the states after the chosen block, (M, L, W).
        features: f_enc(x), (M, L, W); no gradient flows into it, whatever the tower's state of training.

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
