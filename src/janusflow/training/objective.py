"""The network with the losses of its family: a packed row in, sums of losses out.

Every loss is a sum. It is divided by the number of tokens or pictures of the whole step, over all packs and processes,
so it does not matter how samples are distributed over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from janusflow.device import CPU
from janusflow.families import family_of
from janusflow.flow import interpolate
from janusflow.training.losses import Forward, LossConfig, active
from janusflow.training.packing import Pack, packed_forward


class Objective(nn.Module):
    """The network with the loss terms and their heads. All training runs through its `forward`.

    Raises:
        ValueError: if a term does not fit the network, such as REPA on a block that does not exist.
    """

    def __init__(self, network: Any, config: LossConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.family = family_of(network.config)
        self.terms = active(config, self.family)
        self.heads: dict[str, str] = {}  # attributes of this module, by term
        for name, term in self.terms.items():
            term.check(network.config, config)
            if (head := term.head(network.config)) is not None:
                self.heads[name] = term.attribute or name
                self.add_module(self.heads[name], head)

    def forward(self, pack: Pack, latents: Tensor | None, features: Tensor | None = None) -> dict[str, Tensor]:
        """Return the sums of the losses of a row by term, only for terms that apply to the row. "zero" and additional
        measurements of terms ("text" of L_AR) are not losses of their own.

        Args:
            latents: x_1 of the row's pictures to generate, (M, C, H, W), or their codes, (M, L); None without any.
            features: f_enc's features of these pictures for REPA, (M, L, W); computed here if not given.
        """
        read = latents
        if latents is not None and pack.noise is not None and pack.t is not None:
            read = interpolate(pack.noise, latents, pack.t)
        options = {key: value for term in self.terms.values() for key, value in term.options(pack).items()}
        output = packed_forward(self.network, pack, latents=read, **options)
        sums: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            head = self.get_submodule(self.heads[name]) if name in self.heads else None
            sums |= term.sums(Forward(self.network, pack, latents, features, output, head, self.config))
        sums["zero"] = self._zero() + 0 * output.logits.sum()
        return sums

    @property
    def blocks(self) -> nn.Module:
        """The LLM's blocks."""
        return self.network.get_submodule(self.family.blocks)

    def _zero(self) -> Tensor:
        """Return zero as a function of every trainable parameter outside the LLM's blocks.

        All of them then have a gradient in every step, whatever its samples use. Sharding needs gradients of the same
        parameters in all processes, and the optimizer of a resumed run needs a state for each.
        """
        blocks = {id(p) for p in self.blocks.parameters()}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in blocks]
        if not others:
            return torch.zeros((), dtype=torch.float32, device=CPU)
        return torch.stack([p.sum() * 0 for p in others]).sum()

    def weighted(self, sums: dict[str, Tensor], counts: Mapping[str, float]) -> Tensor:
        """Return the loss: each sum divided by its count, weighted and added up.

        Args:
            counts: count of each term over the whole step.
        """
        weights = {name: self.config.weight(name) for name in self.terms} | {"zero": 1.0}
        terms = [weights[name] / max(counts.get(name, 1), 1) * sums[name] for name in weights if name in sums]
        return torch.stack(terms).sum()
