"""The settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from janusflow.data.constraints import Count, FromOne, FromZero, Share
from janusflow.data.samples import SampleConfig
from janusflow.training.config.data import DataConfig
from janusflow.training.config.model import LoraConfig, ModelConfig
from janusflow.training.config.optimizer import OptimizerConfig
from janusflow.training.losses import LossConfig


@dataclass(frozen=True)
class SaveConfig:
    """Checkpoints.

    Attributes:
        every: steps between two.
        keep: number of the last ones that are kept; the best one is kept, too.
        background: write while training continues; needs memory for a copy of all tensors.
    """

    every: FromOne = 500
    keep: FromOne = 2
    background: bool = False


@dataclass(frozen=True)
class WatchConfig:
    """What is shown while a run trains.

    Attributes:
        every: steps between two sheets of generated pictures and answers from the EMA weights; 0 is never.
        prompts: of the pictures.
        questions: about the last picture.
        guidance_scale, num_inference_steps: of the pictures.
        tensorboard, wandb: whether to log there; TensorBoard needs its package, W&B its own.
        curves: whether to plot losses, learning rate and gradient norm into `out/curves.png` at the end (matplotlib).
    """

    every: Count = 0
    prompts: list[str] = field(default_factory=lambda: ["a corgi on a red sofa", "a glass of water next to a book"])
    questions: list[str] = field(default_factory=lambda: ["Describe this image."])
    guidance_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    num_inference_steps: FromOne = 30
    tensorboard: bool = True
    wandb: bool = False
    curves: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    Attributes:
        out: folder of the run.
        parts: what learns; names from `Family.trainable`.
        freeze: beginnings of names of parameters that stay as they are, though their part learns, such as
            `understanding_encoder.begin_embedding`.
        steps: optimizer steps in all.
        batch_size: samples of a step, over all processes.
        pack_length: tokens of a row.
        precision: of the matrix products; weights, EMA and optimizer are float32. "auto" is bfloat16 where the device
            multiplies it fast, else float32.
        ema: decay of the average of the weights, which is what is exported.
        ema_warmup: start with a small decay, (1 + n) / (10 + n) after n steps, until it reaches `ema`. Without it the
            decay is constant, as in the paper, and a run of few steps exports mostly the weights that it started from.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        compile: compile the blocks with torch.compile.
        spike: stop if, after the first steps, the loss without signed terms (L_REPA) exceeds this many times its
            running mean; 0 is never.
        seed: of everything random.
        model, data, samples, loss, optimizer, save, watch, lora: see their classes.
    """

    out: str
    parts: list[str]
    steps: FromOne
    batch_size: FromOne
    model: ModelConfig
    data: DataConfig
    pack_length: Annotated[int, Field(ge=16)] = 4096
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    ema: Share = 0.99
    ema_warmup: bool = False
    freeze: list[str] = field(default_factory=list)
    activation_checkpointing: bool = False
    compile: bool = False
    spike: FromZero = 10.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = 0
    samples: SampleConfig = field(default_factory=SampleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def ema_decay(self, step: int) -> float:
        """Decay of the average at a step, counted from 0."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema

    def start_share(self, steps: int) -> float:
        """Share of the starting weights in the average after this many steps: the product of the decays."""
        return math.prod(self.ema_decay(step) for step in range(steps))
