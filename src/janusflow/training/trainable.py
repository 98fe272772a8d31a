"""The choice of the parts of the network that are trained."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from janusflow.arguments import quoted
from janusflow.families import family_of

TAUGHT_BY = {"aligner": "understanding", "tower": "understanding", "generation": "generation"}
"""The only task that each part learns from; the LLM learns from all tasks."""


def choose_trainable(network: PreTrainedModel, parts: Sequence[str], frozen: Sequence[str] = ()) -> None:
    """Make the parameters of these parts trainable and freeze all others, including those that are never run.

    Args:
        network: the network, changed in place.
        parts: names of the parts to train.
        frozen: prefixes of the names of parameters in these parts that stay frozen.

    Raises:
        ValueError: for a part that the network's family does not have, or a prefix that no parameter's name has.
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
