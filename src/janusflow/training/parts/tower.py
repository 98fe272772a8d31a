"""The SigLIP tower: pictures against their captions, with two auxiliary losses that need no other labels.

The original SigLIP was trained on billions of pictures. From thousands of them, the pairwise loss learns too slowly on
its own, because it asks for one vector per picture. So every patch also predicts

- words: the words of the caption. The patches together give each token the logit logsumexp_p (W h_p) - log P, and the
  loss is the cross-entropy with the caption's tokens, each weighted by log(B / captions of the batch that contain it).
- outlines: which of its pixels differ from the background, the median color of the picture's border.

Shapes: B pictures, P patches of p x p pixels, W the width, V the vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

from janusflow.data.samples import Sample
from janusflow.training.parts.config import TowerConfig
from janusflow.training.parts.data import Batches
from janusflow.training.parts.fit import Losses, fit

CONTRAST = 0.12  # in [-1, 1]: how far a channel of a pixel is from the background's
FIRST_SCALE, FIRST_BIAS = 2.3, -10.0  # of the pairwise logits: log 10, and almost no pair matches (SigLIP, section 3.2)


class TowerLearner(nn.Module):
    """SigLIP with the heads of the auxiliary losses."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width, patch = config.vision_config.hidden_size, config.vision_config.patch_size
        self.siglip = SiglipModel(config)
        self.words = nn.Linear(width, config.text_config.vocab_size)
        self.outlines = nn.Linear(width, patch**2)
        with torch.no_grad():
            self.siglip.logit_scale.fill_(FIRST_SCALE)
            self.siglip.logit_bias.fill_(FIRST_BIAS)

    def losses(self, pixels: Tensor, ids: Tensor, counted: Tensor) -> Losses:
        """Return the three losses, and the share of pictures whose own caption is the most similar in the batch.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].
            ids: tokens of the captions, (B, T), padded.
            counted: which of them are not padding, (B, T).
        """
        output = self.siglip(input_ids=ids, pixel_values=pixels, return_loss=True)
        patches = output.vision_model_output.last_hidden_state  # (B, P, W)
        logits = self.words(patches).float().logsumexp(dim=1) - math.log(patches.shape[1])  # (B, V)
        words = -(word_targets(ids, counted, logits.shape[1]) * logits.log_softmax(dim=1)).sum(dim=1).mean()
        shown = outlines(pixels, round(patches.shape[1] ** 0.5))
        found = F.binary_cross_entropy_with_logits(self.outlines(patches).float(), shown)
        right = output.logits_per_image.argmax(dim=1) == torch.arange(len(ids), device=ids.device)
        return {"pairs": output.loss, "words": words, "outlines": found, "retrieved": right.float().mean()}


def word_targets(ids: Tensor, counted: Tensor, vocabulary: int) -> Tensor:
    """Return the tokens of each caption, weighted by rarity in the batch, (B, V); rows add up to 1, or to 0."""
    bag = torch.zeros(len(ids), vocabulary + 1, device=ids.device)
    bag.scatter_(1, torch.where(counted, ids, vocabulary), 1.0)  # padding goes into a column that is dropped
    bag = bag[:, :vocabulary]
    rare = (len(ids) / bag.sum(dim=0).clamp(min=1)).log()
    weighted = bag * rare
    return weighted / weighted.sum(dim=1, keepdim=True).clamp(min=1e-6)


def outlines(pixels: Tensor, side: int) -> Tensor:
    """Return which pixels differ from the median of the border, (B, side * side, pixels of a patch) float32."""
    border = torch.cat([pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]], dim=2)
    background = border.median(dim=2).values[:, :, None, None]
    inside = (pixels - background).abs().amax(dim=1) > CONTRAST
    return rearrange(inside.float(), "b (h p) (w q) -> b (h w) (p q)", h=side, w=side)


def captions_of(samples: list[Sample], length: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of the captions, (B, length) padded on the right, and which of them are not padding."""
    ids = torch.full((len(samples), length), pad)
    counted = torch.zeros(len(samples), length, dtype=torch.bool)
    for row, sample in enumerate(samples):
        cut = sample.tokens.ids[:length]
        ids[row, : len(cut)] = torch.tensor(cut)
        counted[row, : len(cut)] = True
    return ids, counted


def fit_tower(
    config: TowerConfig,
    vision: SiglipVisionConfig,
    batch: Batches,
    folder: Path,
    *,
    vocabulary: int,
    pad: int,
    seed: int,
    device: torch.device,
) -> SiglipModel:
    """Train a tower with a small text tower, or resume its training.

    Args:
        pad: id of the padding token.
    """
    torch.manual_seed(seed)
    text = SiglipTextConfig(
        vocab_size=vocabulary,
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=config.text_layers,
        num_attention_heads=vision.num_attention_heads,
        max_position_embeddings=config.text_tokens,
        pad_token_id=pad,
        bos_token_id=None,  # the defaults are outside of a small vocabulary
        eos_token_id=None,
        projection_size=vision.hidden_size,
    )
    shown = {**vision.to_dict(), "vision_use_head": True}
    learner = TowerLearner(SiglipConfig(text_config=text.to_dict(), vision_config=shown)).to(device)

    def losses(model: Any, step: int) -> Losses:
        samples = batch(step)
        pixels = torch.stack([sample.drawn.pixels for sample in samples if sample.drawn is not None])
        ids, counted = captions_of(samples, config.text_tokens, pad)
        found = model.losses(pixels.to(device), ids.to(device), counted.to(device))
        loss = found["pairs"] + config.words * found["words"] + config.outlines * found["outlines"]
        return {"loss": loss, **found}

    return fit(learner, losses, config.fit, folder, title="tower").siglip
