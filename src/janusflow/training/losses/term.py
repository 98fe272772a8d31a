"""What every loss term defines, and the weights of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from janusflow.data.constraints import FromZero
from janusflow.data.samples import Sample
from janusflow.training.packing import Pack


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        ar, flow, repa: weights of L_AR, L_RF and L_REPA; with a weight of 0 a loss does not train.
        codes: weight of L_AR over the codes of pictures to generate (Janus, in place of L_RF and L_REPA).
        weights: weights of other terms by name; 0 for those that are not listed.
        anchor: weight of anchored samples relative to the others in L_AR, L_RF and that of codes
            (`training/anchor.py`); L_REPA leaves them out.
        repa_block: the LLM block, from 1, whose states REPA compares.
    """

    ar: FromZero = 1.0
    flow: FromZero = 1.0
    repa: FromZero = 1.0
    codes: FromZero = 1.0
    repa_block: int = 6
    anchor: FromZero = 1.0
    weights: dict[str, FromZero] = field(default_factory=dict)

    def weight(self, name: str) -> float:
        """The weight of a term."""
        named = name in {each.name for each in fields(self)}
        return float(getattr(self, name) if named else self.weights.get(name, 0.0))


@dataclass(frozen=True)
class Forward:
    """One packed row after the network's forward pass: what terms compute their sums from.

    Attributes:
        network: the network.
        row: the samples.
        latents: x_1 of the M pictures to generate, (M, C, H, W), or their codes, (M, L); None without any.
        features: f_enc's features of them from the cache, (M, L, W); None without a cache.
        output: what the network's forward returned.
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
        name: of its mean in the log and of its weight in `loss`.
        title: in model cards and curves.
        optional: whether a weight of 0 leaves it out; other terms are still computed and logged.
        signed: whether it falls below zero; the check for spikes leaves it out.
        details: names of further values in the log, see `detail`.
        attribute: of the objective, under which checkpoints have the parameters of `head`; by default the name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    optional: ClassVar[bool] = True
    signed: ClassVar[bool] = False
    details: ClassVar[tuple[str, ...]] = ()
    attribute: ClassVar[str] = ""

    def sum(self, seen: Forward) -> Tensor | None:
        """The sum over a row, a scalar with gradient; None if the row has nothing for it."""
        raise NotImplementedError

    def count(self, samples: Sequence[Sample]) -> float:
        """How many tokens or pictures of these samples the sum is over."""
        raise NotImplementedError

    def check(self, sizes: Any, config: LossConfig) -> None:
        """Check that a network of these dimensions can be trained with it.

        Raises:
            ValueError: if not.
        """

    def head(self, sizes: Any) -> nn.Module | None:
        """A module that learns with the network and is not part of it. It is saved next to an export."""
        return None

    def options(self, row: Pack) -> dict[str, Any]:
        """What the network's forward has to return for a row, such as `output_hidden_states=True`."""
        return {}

    def sums(self, seen: Forward) -> dict[str, Tensor]:
        """The sum under the term's name, and those that `detail` needs."""
        found = self.sum(seen)
        return {} if found is None else {self.name: found}

    def counts(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The count under the term's name, and those that `detail` needs."""
        return {self.name: self.count(samples)}

    def detail(self, totals: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        """Further values for the log, named in `details`, from the sums and counts of a whole step."""
        return {}
