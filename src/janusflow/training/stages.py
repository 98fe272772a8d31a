"""The paper's training as data: which parts of the network learn in which stage, for how long and from what.

`recipes/paper/*.yaml` hold the same values; a test compares them with the table below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from janusflow.data.mixture import Ratio
from janusflow.families import family_of

TAUGHT_BY = {"aligner": "understanding", "tower": "understanding", "generation": "generation"}
"""The one task that a part learns from; the LLM learns from all."""


@dataclass(frozen=True)
class Stage:
    """One column of the paper's table.

    Attributes:
        parts: what learns, names from `Family.trainable`.
        learning_rate: constant after the warm-up.
        warmup: steps.
        steps: in all.
        batch_size: samples of a step.
        ratios: of the data, one after the other.
        template: "pretraining" (a caption instruction; a prompt and its picture) or "chat".
    """

    parts: tuple[str, ...]
    learning_rate: float
    warmup: int
    steps: int
    batch_size: int
    ratios: tuple[Ratio, ...]
    template: str


PAPER = {
    "stage1": Stage(("aligner", "generation"), 1e-4, 2_000, 10_000, 512, (Ratio(50, 50, 0),), "pretraining"),
    "stage2": Stage(
        ("aligner", "generation", "llm"),
        1e-4,
        0,
        380_000,
        512,
        (Ratio(30, 50, 20, until=10_000), Ratio(14, 80, 6)),
        "pretraining",
    ),
    "stage3": Stage(("aligner", "generation", "llm", "tower"), 2e-5, 1_000, 26_000, 256, (Ratio(21, 70, 9),), "chat"),
}


def choose_trainable(network: PreTrainedModel, parts: Sequence[str]) -> None:
    """Lets the parameters of these parts learn and freezes all others, those too that are never run.

    Raises:
        ValueError: for a part that the network's family does not have.
    """
    family = family_of(network.config)
    unknown = [part for part in parts if part not in family.trainable]
    if unknown:
        raise ValueError(f"unknown parts {', '.join(unknown)}; known are {', '.join(family.trainable)}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(family.part_of(name) in parts and family.never_run not in name)
