"""The VQ codec of a Janus: pictures to codes and back, in the layout of LlamaGen's tokenizer, which Janus uses.

The encoder's vectors and the codes are compared at length 1. The decoder sees the code in place of the vector, and its
gradient goes straight through to the encoder (van den Oord et al., arXiv 1711.00937). LlamaGen adds a perceptual and an
adversarial loss, which need two more networks; here a loss on the picture's edges takes their place.

Shapes: B pictures, L codes each, K codes of the codebook, W its width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from janusflow.files import write_text
from janusflow.model.vq_codec import VqCodec, code_distances
from janusflow.progress import say
from janusflow.training.parts.config import VqConfig
from janusflow.training.parts.data import Batches
from janusflow.training.parts.fit import Losses, fit, step_generator
from janusflow.training.parts.losses import reconstruction
from janusflow.training.parts.vae import MEASURED_STEPS, pixels_of

REPORT = "report.json"
MEMORY = 0.98  # decay of the running use of a code: one that is never used is replaced after 174 steps
UNUSED = 0.03  # share of the mean use below which a code is replaced


class VqLearner(nn.Module):
    """A codec that tracks the running share of vectors that use each code.

    Attributes:
        used: the shares by which codes are replaced, (K,); a replaced code starts with the mean share.
        seen: the shares as they were, (K,), for the log.
    """

    used: Tensor
    seen: Tensor

    def __init__(self, config: JanusVQVAEConfig) -> None:
        super().__init__()
        self.vq: Any = JanusVQVAE(config)
        for module in self.vq.modules():  # transformers' initial weights are those of a language model
            if isinstance(module, nn.Conv2d | nn.GroupNorm):
                module.reset_parameters()
        codes = config.num_embeddings
        with torch.no_grad():
            self.vq.quantize.embedding.weight.normal_()
        self.register_buffer("used", torch.full((codes,), 1 / codes))
        self.register_buffer("seen", torch.zeros(codes))

    def losses(self, pixels: Tensor, config: VqConfig, generator: torch.Generator, step: int) -> Losses:
        """|d| + 2 d^2 + edges |grad d| + |c - sg(z)|^2 + commitment |z - sg(c)|^2, d = decode(c) - x.

        In the first steps (`config.continuous`) c is z itself, and the codebook is filled with the vectors of the last
        ones. With codes from the start, all vectors soon agree with the few codes that are near them.

        Args:
            pixels: x, (B, 3, S, S) in [-1, 1].
            config: weights of the terms.
            generator: chooses the vectors that replace unused codes.
            step: number of the step, from 0.
        """
        vectors, distances = code_distances(self.vq, pixels)  # z, (B, L, W)
        if step < config.continuous:
            distances = self._fill(vectors.detach(), step)
        chosen = distances.argmin(dim=-1)
        codes = F.normalize(self.vq.quantize.embedding(chosen).float(), dim=-1)  # c
        codebook = (codes - vectors.detach()).square().sum(dim=-1).mean()
        commitment = (codes.detach() - vectors).square().sum(dim=-1).mean()
        through = vectors if step < config.continuous else vectors + (codes - vectors).detach()
        side = self.vq.quantize.quant_state_dims[0]
        image = through.transpose(1, 2).unflatten(2, (side, side))
        found = reconstruction(self.vq.decoder(self.vq.post_quant_conv(image)).float() - pixels, edges=config.edges)
        loss = found["loss"] + codebook + config.commitment * commitment
        perplexity = self._count(chosen, vectors.detach(), generator)
        return {**found, "loss": loss, "commitment": commitment, "perplexity": perplexity}

    @torch.no_grad()
    def _fill(self, vectors: Tensor, step: int) -> Tensor:
        """Put the vectors of a step, (B, L, W), into the next places of the codebook; return their distances to it."""
        flat = vectors.flatten(0, 1)[: len(self.used)]
        places = (torch.arange(len(flat), device=flat.device) + step * len(flat)) % len(self.used)
        self.vq.quantize.embedding.weight[places] = flat
        codes = F.normalize(self.vq.quantize.embedding.weight, dim=-1)
        return 2 - 2 * vectors @ codes.T

    @torch.no_grad()
    def _count(self, chosen: Tensor, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """Count the use of codes, and replace codes that are hardly used by vectors of this batch.

        A codebook that learns only by gradients loses codes: a code that is nearest to no vector never moves again.

        Returns:
            The perplexity of the codes over the last steps.
        """
        count = len(self.used)
        shares = torch.bincount(chosen.flatten(), minlength=count).to(self.used) / chosen.numel()
        self.used.lerp_(shares, 1 - MEMORY)
        self.seen.lerp_(shares, 1 - MEMORY)
        dead = (self.used < UNUSED / count).nonzero()[:, 0]
        flat = vectors.flatten(0, 1)
        at = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
        self.vq.quantize.embedding.weight[dead] = flat[at]
        self.used[dead] = 1 / count
        return perplexity_of(self.seen)


def perplexity_of(shares: Tensor) -> Tensor:
    """Return exp of the entropy of how often each code is used, (K,); this is K if all are used equally."""
    return torch.special.entr(shares / shares.sum()).sum().exp()


def fit_vq(
    config: VqConfig, sizes: JanusVQVAEConfig, batch: Batches, folder: Path, *, seed: int, device: torch.device
) -> Any:
    """Train a codec, or resume its training, and report how much of its codebook pictures use (`report.json`).

    Args:
        config: see `VqConfig`.
        sizes: dimensions of the codec.
        batch: function that gives the pictures of a step.
        folder: folder of the run.
        seed: seed of its weights, and of the vectors that replace unused codes.
        device: device to train on.

    Returns:
        transformers' `JanusVQVAE`.
    """
    torch.manual_seed(seed)
    learner = VqLearner(sizes).to(device)

    def losses(model: Any, step: int) -> Losses:
        return model.losses(pixels_of(batch, step).to(device), config, step_generator(seed, step), step)

    vq = fit(learner, losses, config.fit, folder, title="VQ codec").vq
    report = measured(vq, [pixels_of(batch, config.fit.steps + step).to(device) for step in range(MEASURED_STEPS)])
    write_text(folder / REPORT, json.dumps(report, indent=1) + "\n")
    used, count = report["used"], report["codes"]
    say(f"VQ codec: {used:,} of {count:,} codes are used (perplexity {report['perplexity']:,.0f})")
    return vq


def measured(vq: Any, pictures: list[Tensor]) -> dict[str, float]:
    """Evaluate a codec on pictures, each (B, 3, S, S): codes, used codes, their perplexity, mean squared error."""
    codec, squared, found = VqCodec(vq), [], []
    for pixels in pictures:
        codes = codec.encode(pixels)
        found.append(codes.flatten())
        squared.append((codec.decode(codes) - pixels).square().mean().item())
    count = vq.quantize.embedding.num_embeddings
    shares = torch.bincount(torch.cat(found), minlength=count).cpu().double()
    used, perplexity = int((shares > 0).sum()), perplexity_of(shares).item()
    return {"codes": count, "used": used, "perplexity": perplexity, "squared": sum(squared) / len(squared)}
