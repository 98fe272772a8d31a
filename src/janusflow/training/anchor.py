"""Anchors: on some samples the network learns its own outputs from before the run, so that it forgets nothing.

Learning without forgetting (Li and Hoiem, arXiv 1606.09282), on samples of what the network should keep. Their labels
and pictures, even those that it generated itself, never match its outputs exactly, so training on them changes it
(docs/log.md). Its own velocities at the same x_t and its own next-token probabilities cause no change at first; later
they pull it back.

Pictures that are generated as codes are treated like text: the network learns the copy's probabilities of each code.

Shapes: M pictures to generate in a row, A of them anchored; K labelled tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.device import CPU
from janusflow.flow import interpolate
from janusflow.flow.path import expand
from janusflow.training.packing import Pack, labelled, pack, packed_forward


class Anchor:
    """A frozen copy of the network that provides the targets of anchored samples.

    Args:
        network: the network before training, with the attention `PACKED`.
    """

    def __init__(self, network: Any) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample], row: Pack, latents: Tensor | None) -> tuple[Pack, Tensor | None]:
        """Replace the targets of anchored samples by the copy's outputs.

        A picture's path is replaced by the straight path through x_t with the copy's velocity v at x_t, from
        x_t - t v to x_t + (1 - t) v.

        Args:
            samples: the samples of the row, in order.
            row: the row that `pack` made of them.
            latents: x_1 of the row's pictures to generate, (M, C, H, W), their codes, or None.

        Returns:
            The row and its latents. The row has `anchored` and `noise` (M, C, H, W) or `soft_codes` for its anchored
            pictures, and `soft_at` and `soft_labels` for the labelled tokens of anchored samples.
        """
        anchored = [sample for sample in samples if sample.anchored]
        if not anchored:
            return row, latents
        device = row.input_ids.device
        own = pack(anchored, device)
        drawn = torch.tensor([s.anchored for s in samples if s.drawn is not None], dtype=torch.bool, device=device)
        read = latents[drawn] if latents is not None and drawn.any() else None
        if read is not None and own.noise is not None and own.t is not None:
            read = interpolate(own.noise, read, own.t)
        answer = packed_forward(self.network, own, latents=read)
        if read is not None and own.noise is None:
            row = replace(row, anchored=drawn, soft_codes=answer.code_logits.float())
        elif read is not None:
            assert latents is not None and row.noise is not None and own.t is not None
            t, velocity = expand(own.t, read), answer.velocity.float()
            noise, latents = row.noise.clone(), latents.clone()
            noise[drawn], latents[drawn] = read - t * velocity, read + (1 - t) * velocity
            row = replace(row, noise=noise, anchored=drawn)
        if len(own.labels):
            soft = torch.cat([torch.full((len(labelled(s.tokens)),), s.anchored, device=CPU) for s in samples])
            row = replace(row, soft_at=soft.to(device), soft_labels=answer.logits[0].float())
        return row, latents
