"""The losses of the paper's section 3.3: as functions of tensors, and together as one module over a pack.

Every loss is a sum; it is divided by the number of tokens or pictures of the whole step, over all packs and processes,
so that it does not matter how samples fell into them.

Shapes: K labelled tokens, V vocabulary, M pictures drawn, (C, H, W) a latent. t of shape (M,) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from janusflow.config import JanusFlowConfig
from janusflow.device import CPU
from janusflow.flow import interpolate, target_velocity
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.training.packing import Pack
from janusflow.training.repa import RepaHead, repa_loss


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        ar, flow, repa: weights of L_AR, L_RF and L_REPA; a weight of 0 leaves the loss out.
        anchor: weight of anchored samples beside the others in L_AR and L_RF (`training/anchor.py`); L_REPA leaves
            them out.
        repa_block: the LLM block, from 1, whose states REPA compares.
    """

    ar: float = 1.0
    flow: float = 1.0
    repa: float = 1.0
    repa_block: int = 6
    anchor: float = 1.0


def autoregressive_loss(logits: Tensor, labels: Tensor, *, reduction: str = "sum") -> Tensor:
    """L_AR = - sum log p(token | what stands before it), over the labelled tokens; divide by their number.

    Args:
        logits: (K, V), of the tokens before the labelled ones.
        labels: (K,) ids.
        reduction: "sum", or "none" for the terms, (K,).

    Returns:
        float32: a scalar, 0 where nothing is labelled; or the terms.
    """
    return F.cross_entropy(logits.float(), labels, reduction=reduction)


def rectified_flow_loss(velocity: Tensor, *, latents: Tensor, noise: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_RF = sum over pictures of the mean over latent values of (v(x_t, t | prompt) - (x_1 - x_0))^2.

    Args:
        velocity: v(x_t, t | prompt), (M, C, H, W), at x_t = t x_1 + (1 - t) x_0.
        latents: x_1.
        noise: x_0.
        weights: (M,) of the pictures; by default all 1.

    Returns:
        A scalar, float32; divide by the number of pictures.
    """
    each = (velocity.float() - target_velocity(noise, latents)).square().flatten(1).mean(dim=1)
    return each.sum() if weights is None else (weights * each).sum()


def distillation_loss(logits: Tensor, soft_labels: Tensor, *, reduction: str = "sum") -> Tensor:
    """sum over tokens of KL(q || p), q the probabilities of `soft_labels` and p those of `logits`, both (K, V).

    Args:
        logits, soft_labels: see above.
        reduction: "sum", or "none" for the terms, (K,).

    Returns:
        float32: a scalar, 0 where both agree, to be divided by the number of tokens; or the terms.
    """
    log_p, log_q = logits.float().log_softmax(dim=-1), soft_labels.float().log_softmax(dim=-1)
    each = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1)
    return each.sum() if reduction == "sum" else each


def check_repa(sizes: JanusFlowConfig, block: int) -> None:
    """Refuses REPA where it cannot be.

    Raises:
        ValueError: for an LLM block that is not there, or grids of different sizes.
    """
    blocks = sizes.text_config.num_hidden_layers
    if not 1 <= block <= blocks:
        raise ValueError(f"repa_block is {block}; the LLM has blocks 1 to {blocks}")
    if sizes.num_understanding_tokens != sizes.num_generation_tokens:
        raise ValueError(
            f"REPA needs equal grids: understanding has {sizes.num_understanding_tokens} tokens, "
            f"generation {sizes.num_generation_tokens}"
        )


class Objective(nn.Module):
    """The network with the REPA head: a pack in, sums of losses out. All of training runs through its `forward`.

    Args:
        network: what is trained.
        config: see `LossConfig`.

    Raises:
        ValueError: if REPA is asked of a block that is not there, or of grids of different sizes.
    """

    def __init__(self, network: JanusFlowForConditionalGeneration, config: LossConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.head: RepaHead | None = None
        if config.repa:
            check_repa(network.config, config.repa_block)
            self.head = RepaHead(network.config)

    def forward(self, pack: Pack, latents: Tensor | None, features: Tensor | None = None) -> dict[str, Tensor]:
        """Sums of the losses of a pack, by name: ar, flow, repa, each only where the pack has something for it. "text",
        the part of "ar" that samples without pictures have, and "zero" are no losses of their own.

        Args:
            pack: a row of samples.
            latents: x_1 of its pictures drawn, (M, C, H, W), or None if it draws none.
            features: f_enc's of them for REPA, (M, L, W); computed here if not given.
        """
        noisy = None
        if latents is not None:
            assert pack.noise is not None and pack.t is not None
            noisy = interpolate(pack.noise, latents, pack.t)
        repa = self.head is not None and latents is not None
        output = self.network(
            input_ids=pack.input_ids,
            pixel_values=pack.seen,
            position_ids=pack.position_ids,
            latents=noisy,
            t=pack.t,
            documents=pack.documents,
            logits_at=pack.predicted_at,
            repa_block=self.config.repa_block if repa else None,
            repa_pixels=pack.pixels if repa and features is None else None,
        )
        sums = {}
        if len(pack.labels):
            sums["ar"], sums["text"] = self._of_labels(output.logits[0], pack)
        if latents is not None:
            assert pack.noise is not None
            weights = None if pack.kept is None else torch.where(pack.kept, self.config.anchor, 1.0)
            sums["flow"] = rectified_flow_loss(output.velocity, latents=latents, noise=pack.noise, weights=weights)
            if self.head is not None:
                features = output.image_features if features is None else features
                free = slice(None) if pack.kept is None else ~pack.kept
                sums["repa"] = repa_loss(self.head(output.image_states[free]), features[free])
        sums["zero"] = self._zero() + 0 * output.logits.sum()
        return sums

    def _of_labels(self, logits: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """L_AR, and where labels are soft the divergence from them; and without a gradient what of it is text's."""
        if pack.soft_at is None or pack.soft_labels is None:
            each = autoregressive_loss(logits, pack.labels, reduction="none")
            return each.sum(), (each.detach() * pack.of_text).sum()
        hard, soft = ~pack.soft_at, pack.soft_at
        each = autoregressive_loss(logits[hard], pack.labels[hard], reduction="none")
        kept = self.config.anchor * distillation_loss(logits[soft], pack.soft_labels, reduction="none")
        text = (each.detach() * pack.of_text[hard]).sum() + (kept.detach() * pack.of_text[soft]).sum()
        return each.sum() + kept.sum(), text

    def _zero(self) -> Tensor:
        """Zero, as a function of every learning parameter outside the LLM's blocks.

        All of them then have a gradient in every step, whatever its samples use: under sharding all processes must have
        gradients of the same parameters, and the optimizer of a resumed run must hold a state for each.
        """
        blocks = {id(p) for p in self.network.language_model.layers.parameters()}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in blocks]
        return (
            torch.stack([p.sum() * 0 for p in others]).sum()
            if others
            else torch.zeros((), dtype=torch.float32, device=CPU)
        )

    def weighted(self, sums: dict[str, Tensor], counts: Mapping[str, float]) -> Tensor:
        """The loss: each sum over its count, weighted and added.

        Args:
            sums: from `forward`.
            counts: labelled tokens ("ar") and pictures drawn ("flow", "repa") of the whole step.
        """
        weights = {"ar": self.config.ar, "flow": self.config.flow, "repa": self.config.repa, "zero": 1.0}
        terms = [weights[name] / max(counts.get(name, 1), 1) * sums[name] for name in weights if name in sums]
        return torch.stack(terms).sum()
