"""Which parts of the network learn."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from janusflow.families import family_of

TAUGHT_BY = {"aligner": "understanding", "tower": "understanding", "generation": "generation"}
"""The one task that a part learns from; the LLM learns from all."""


def choose_trainable(network: PreTrainedModel, parts: Sequence[str]) -> None:
    """Lets the parameters of these parts learn and freezes all others, those too that are never run.

    Raises:
        ValueError: for a part that the network's family does not have.
    """
    family = family_of(network.config)
    unknown = [part for part in parts if part not in family.trainable]
    if unknown:
        raise ValueError(f"unknown parts {', '.join(unknown)}; choose from {', '.join(family.trainable)}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(family.part_of(name) in parts and family.never_run not in name)
