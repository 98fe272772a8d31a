"""The interface of loss terms, and the weights of all terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from janusflow.data.constraints import NonNegativeFloat
from janusflow.data.samples import Sample
from janusflow.training.packing import Pack


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        ar, flow, repa: weights of L_AR, L_RF and L_REPA; a loss with weight 0 does not train.
        codes: weight of L_AR over the codes of pictures to generate (Janus, in place of L_RF and L_REPA).
        weights: weights of other terms by name; 0 for those that are not listed.
        anchor: weight of anchored samples relative to the others in L_AR, L_RF and L_AR of codes
            (`training/anchor.py`); L_REPA leaves them out.
        repa_block: number of the LLM block, from 1, whose states REPA compares; for the last block, these are the
            states after the LLM's final norm.
    """

    ar: NonNegativeFloat = 1.0
    flow: NonNegativeFloat = 1.0
    repa: NonNegativeFloat = 1.0
    codes: NonNegativeFloat = 1.0
    repa_block: int = 6
    anchor: NonNegativeFloat = 1.0
    weights: dict[str, NonNegativeFloat] = field(default_factory=dict)

    def weight(self, name: str) -> float:
        """Return the weight of a term."""
        named = name in {each.name for each in fields(self)}
        return float(getattr(self, name) if named else self.weights.get(name, 0.0))


@dataclass(frozen=True)
class Forward:
    """One packed row after the network's forward pass, from which terms compute their sums.

    Attributes:
        network: the network.
        row: the samples.
        latents: x_1 of the M pictures to generate, (M, C, H, W), or their codes, (M, L); None without any.
        features: f_enc's features of these pictures from the cache, (M, L, W); None without a cache.
        output: the output of the network's forward.
        head: the term's own module, see `Term.head`.
        config: weights and settings.
    """

    network: Any
    row: Pack
    latents: Tensor | None
    features: Tensor | None
    output: Any
    head: nn.Module | None
    config: LossConfig


class Term:
    """A loss: a sum over tokens or pictures, divided by their number in the whole step, over all packs and processes.

    Attributes:
        name: name of its mean in the log and of its weight in `loss`.
        title: title in model cards and curves.
        optional: whether a weight of 0 leaves it out; other terms are still computed and logged.
        signed: whether it falls below zero; the check for spikes leaves such terms out.
        details: names of further values in the log, see `detail`.
        attribute: attribute of the objective under which checkpoints store the parameters of `head`; by default the
            name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    optional: ClassVar[bool] = True
    signed: ClassVar[bool] = False
    details: ClassVar[tuple[str, ...]] = ()
    attribute: ClassVar[str] = ""

    def sum(self, seen: Forward) -> Tensor | None:
        """Return the sum over a row, a scalar with gradient; None if the row has nothing for this term."""
        raise NotImplementedError

    def count(self, samples: Sequence[Sample]) -> float:
        """Return how many tokens or pictures of these samples the sum is over."""
        raise NotImplementedError

    def check(self, sizes: Any, config: LossConfig) -> None:
        """Check that a network of these dimensions can be trained with this term.

        Raises:
            ValueError: if it cannot.
        """

    def head(self, sizes: Any) -> nn.Module | None:
        """Return a module that is trained with the network but is not part of it. It is saved next to an export."""
        return None

    def options(self, row: Pack) -> dict[str, Any]:
        """Return what the network's forward must output in addition for a row, such as `output_hidden_states=True`."""
        return {}

    def sums(self, seen: Forward) -> dict[str, Tensor]:
        """Return the sum under the term's name, and the sums that `detail` needs."""
        found = self.sum(seen)
        return {} if found is None else {self.name: found}

    def counts(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Return the count under the term's name, and the counts that `detail` needs."""
        return {self.name: self.count(samples)}

    def detail(self, totals: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        """Return further values for the log, named in `details`, from the sums and counts of a whole step."""
        return {}
