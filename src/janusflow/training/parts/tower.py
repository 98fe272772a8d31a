"""The SigLIP tower: pictures against their captions, with two auxiliary losses that need no other labels.

The original SigLIP was trained on billions of pictures. From thousands of them, the pairwise loss learns too slowly on
its own, because it asks for one vector per picture. So every patch also predicts

- outlines: which of its pixels differ from the background, the median color of the picture's border. To predict them,
  the tower has to separate a shape from its color and contrast.
- words: what it shows. A patch belongs to the region (`data/regions.py`) in whose box it is most central; a picture
  without regions is one region with its caption. The loss of a region with the patches p is
  -sum_p a_p sum_w t_w log softmax(W h_p)_w, where a_p is the share of the region's foreground that lies in p, and t_w
  is proportional to log(R / regions with the token w), for the tokens of its text and the R regions of the batch.

Shapes: B pictures, P patches of p x p pixels, R regions, T tokens, W the width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

from janusflow.training.parts.config import TowerConfig
from janusflow.training.parts.data import Batches, Pictured
from janusflow.training.parts.fit import Losses, fit

CONTRAST = 0.12  # in [-1, 1]: how far a channel of a pixel is from the background's
FIRST_SCALE, FIRST_BIAS = 2.3, -10.0  # of the pairwise logits: log 10, and almost no pair matches (SigLIP, section 3.2)


@dataclass(frozen=True)
class Regions:
    """The regions of a batch.

    Attributes:
        ids: tokens of their texts, (R, T), padded.
        counted: which of them are not padding, (R, T).
        of_patch: region of each patch, (B, P), or -1.
    """

    ids: Tensor
    counted: Tensor
    of_patch: Tensor

    def to(self, device: torch.device) -> Regions:
        """Return them on a device."""
        return Regions(self.ids.to(device), self.counted.to(device), self.of_patch.to(device))


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

    def losses(self, pixels: Tensor, ids: Tensor, counted: Tensor, regions: Regions) -> Losses:
        """Return the three losses, and the share of pictures whose own caption is the most similar in the batch.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].
            ids: tokens of the captions, (B, T), padded.
            counted: which of them are not padding, (B, T).
            regions: see `Regions`.
        """
        output = self.siglip(input_ids=ids, pixel_values=pixels, return_loss=True)
        patches = output.vision_model_output.last_hidden_state  # (B, P, W)
        shown = outlines(pixels, round(patches.shape[1] ** 0.5))
        found = F.binary_cross_entropy_with_logits(self.outlines(patches).float(), shown)
        right = output.logits_per_image.argmax(dim=1) == torch.arange(len(ids), device=ids.device)
        words = self.word_loss(patches, shown.mean(dim=2), regions)
        return {"pairs": output.loss, "words": words, "outlines": found, "retrieved": right.float().mean()}

    def word_loss(self, patches: Tensor, foreground: Tensor, regions: Regions) -> Tensor:
        """Return the loss of the words of all regions, as the mean of those that show anything.

        Args:
            patches: (B, P, W).
            foreground: share of each patch that is not background, (B, P).
            regions: see `Regions`.
        """
        named = (regions.of_patch >= 0) & (foreground > 0)
        number, share = regions.of_patch[named], foreground[named]
        areas = torch.zeros(len(regions.ids), device=share.device).index_add(0, number, share)
        logs = self.words(patches[named]).float().log_softmax(dim=1) * (share / areas[number])[:, None]
        targets = word_targets(regions.ids, regions.counted, logs.shape[1])
        summed = torch.zeros_like(targets).index_add(0, number, logs)
        return -(targets * summed).sum() / (areas > 0).sum().clamp(min=1)


def word_targets(ids: Tensor, counted: Tensor, vocabulary: int) -> Tensor:
    """Return the tokens of each text, weighted by rarity in the batch, (B, V); rows add up to 1, or to 0."""
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


def padded(texts: Sequence[Sequence[int]], length: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of texts, (N, length) cut or padded on the right, and which of them are not padding."""
    ids = torch.full((len(texts), length), pad)
    counted = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        cut = text[:length]
        ids[row, : len(cut)] = torch.tensor(cut)
        counted[row, : len(cut)] = True
    return ids, counted


def regions_of(samples: Sequence[Pictured], side: int, length: int, pad: int) -> Regions:
    """Return the regions of pictures with side x side patches.

    A patch belongs to the region in whose box its center is nearest to the middle, relative to the box's sides.
    """
    texts: list[list[int]] = []
    rows = []
    places = (torch.arange(side) + 0.5) / side
    for sample in samples:
        boxes = torch.tensor([box for _, box in sample.regions])
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        across, down = ((places - middle[:, n, None]).abs() / half[:, n, None] for n in (0, 1))  # (regions, side)
        away = torch.maximum(down[:, :, None], across[:, None, :]).flatten(1)  # (regions, P)
        nearest = away.min(dim=0)
        rows.append(torch.where(nearest.values <= 1, nearest.indices + len(texts), -1))
        texts += [ids for ids, _ in sample.regions]
    return Regions(*padded(texts, length, pad), torch.stack(rows))


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
        samples = [sample for sample in batch(step) if isinstance(sample, Pictured)]
        pixels = torch.stack([sample.drawn.pixels for sample in samples if sample.drawn is not None])
        ids, counted = padded([sample.tokens.ids for sample in samples], config.text_tokens, pad)
        regions = regions_of(samples, vision.image_size // vision.patch_size, config.text_tokens, pad)
        found = model.losses(pixels.to(device), ids.to(device), counted.to(device), regions.to(device))
        loss = found["pairs"] + config.words * found["words"] + config.outlines * found["outlines"]
        return {"loss": loss, **found}

    return fit(learner, losses, config.fit, folder, title="tower").siglip
