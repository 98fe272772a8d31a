"""The paper's training, which `recipes/paper/*.yaml` have too: what learns in which stage, for how long, from what."""

from __future__ import annotations

from dataclasses import dataclass

from janusflow.data.mixture import Ratio


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
