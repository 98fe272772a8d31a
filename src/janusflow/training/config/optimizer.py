"""The optimizer of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from janusflow.data.constraints import NonNegativeFloat, NonNegativeInt, Share


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate.

    Attributes:
        name: "adamw", as in the paper; or "muon", for the matrices of the blocks of LLM, f_enc, g_enc and g_dec, with
            AdamW for the rest.
        learning_rate: learning rate after the warm-up.
        warmup: number of steps of linear warm-up.
        schedule: "constant"; "cosine" down to `floor` at the last step; or "decay", constant and then linearly down to
            `floor` over the last `decay` share of the steps.
        betas, weight_decay: settings of AdamW; the paper's are (0.9, 0.95) and 0. Muon has the same weight decay, and
            its momentum is the second beta.
        clip: largest norm of the gradient; .inf does not clip.
        decay, floor: settings of the schedules, as shares of all steps and of the learning rate.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: NonNegativeFloat = 1e-4
    warmup: NonNegativeInt = 0
    schedule: Literal["constant", "cosine", "decay"] = "constant"
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.25
    floor: Share = 0.01

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, in a run of `steps` steps."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        done = min(step / steps, 1.0)
        share = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "decay": min(1.0, (1 - done) / self.decay),
        }[self.schedule]
        if self.schedule != "constant":
            share = self.floor + (1 - self.floor) * share
        return self.learning_rate * warm * share
