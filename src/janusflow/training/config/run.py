"""The settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from janusflow.data.constraints import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Share
from janusflow.data.samples import SampleConfig
from janusflow.training.config.data import DataConfig
from janusflow.training.config.model import LoraConfig, ModelConfig
from janusflow.training.config.optimizer import OptimizerConfig
from janusflow.training.losses import LossConfig


@dataclass(frozen=True)
class SaveConfig:
    """The checkpoints of a run.

    Attributes:
        every: steps between two checkpoints.
        keep: number of the last checkpoints to keep; the best one is kept too.
        background: write while training continues; this needs memory for a copy of all tensors.
    """

    every: PositiveInt = 500
    keep: PositiveInt = 2
    background: bool = False


@dataclass(frozen=True)
class WatchConfig:
    """The reports of a run.

    Attributes:
        every: steps between two sheets of generated pictures and answers from the EMA weights; 0 means never.
        prompts: prompts of the pictures.
        questions: questions about the last picture.
        guidance_scale, num_inference_steps: settings for generating the pictures.
        tensorboard, wandb: whether to log to TensorBoard and W&B; each needs its package.
        curves: whether to plot losses, learning rate and gradient norm to `out/curves.png` at the end (matplotlib).
    """

    every: NonNegativeInt = 0
    prompts: list[str] = field(default_factory=lambda: ["a corgi on a red sofa", "a glass of water next to a book"])
    questions: list[str] = field(default_factory=lambda: ["Describe this image."])
    guidance_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    num_inference_steps: PositiveInt = 30
    tensorboard: bool = True
    wandb: bool = False
    curves: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run.

    Attributes:
        out: folder of the run.
        parts: parts to train; names from `Family.trainable`.
        freeze: prefixes of the names of parameters that stay frozen although their part is trained, such as
            `understanding_encoder.begin_embedding`.
        steps: total number of optimizer steps.
        batch_size: samples per step, over all processes.
        pack_length: tokens per row.
        precision: precision of matrix products; weights, EMA and optimizer are float32. "auto" is bfloat16 where the
            device multiplies it fast, else float32.
        ema: decay of the average of the weights, which is exported.
        ema_warmup: start with a small decay, (1 + n) / (10 + n) after n steps, until it reaches `ema`. Without it, the
            decay is constant, as in the paper, and a run of few steps mostly exports the weights that it started from.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        compile: compile the blocks with torch.compile.
        spike: stop if, after the first steps, the loss without signed terms (L_REPA) exceeds this many times its
            running mean; 0 means never.
        seed: seed of everything random.
        model, data, samples, loss, optimizer, save, watch, lora: see their classes.
    """

    out: str
    parts: list[str]
    steps: PositiveInt
    batch_size: PositiveInt
    model: ModelConfig
    data: DataConfig
    pack_length: Annotated[int, Field(ge=16)] = 4096
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    ema: Share = 0.99
    ema_warmup: bool = False
    freeze: list[str] = field(default_factory=list)
    activation_checkpointing: bool = False
    compile: bool = False
    spike: NonNegativeFloat = 10.0
    seed: Seed = 0
    samples: SampleConfig = field(default_factory=SampleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def ema_decay(self, step: int) -> float:
        """Return the decay of the average at a step, counted from 0."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema

    def start_share(self, steps: int) -> float:
        """Return the share of the starting weights in the average after this many steps: the product of the decays."""
        return math.prod(self.ema_decay(step) for step in range(steps))
