"""Which parts of the network learn."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from janusflow.arguments import quoted
from janusflow.families import family_of

TAUGHT_BY = {"aligner": "understanding", "tower": "understanding", "generation": "generation"}
"""The one task that a part learns from; the LLM learns from all."""


def choose_trainable(network: PreTrainedModel, parts: Sequence[str], frozen: Sequence[str] = ()) -> None:
    """Lets the parameters of these parts learn and freezes all others, those too that are never run.

    Args:
        network: see above.
        parts: that learn.
        frozen: beginnings of names of parameters in them that do not learn.

    Raises:
        ValueError: for a part that the network's family does not have, or a beginning that no parameter has.
    """
    family = family_of(network.config)
    unknown = [part for part in parts if part not in family.trainable]
    if unknown:
        raise ValueError(f"unknown parts {', '.join(unknown)}; choose from {', '.join(family.trainable)}")
    names = [name for name, _ in network.named_parameters()]
    for start in frozen:
        if not any(name.startswith(start) for name in names):
            raise ValueError(f"freeze has {quoted(start)}, with which no parameter's name begins, as {names[0]} does")
    for name, parameter in network.named_parameters():
        learns = family.part_of(name) in parts and not name.startswith(tuple(frozen))
        parameter.requires_grad_(learns and family.never_run not in name)
