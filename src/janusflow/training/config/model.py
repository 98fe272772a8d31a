"""What is trained: the network, and adapters in the place of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from janusflow.data.constraints import Count, FromOne, Share

Preset: TypeAlias = Literal["janusflow_1b", "janusflow_1b_256", "tiny", "janus_1b", "janus_pro_1b", "janus_pro_7b"]


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    Attributes:
        checkpoint: "tiny", a folder or a hub id to start from. Without one the network starts from `preset`.
        preset: "janusflow_1b", "janusflow_1b_256", "tiny", "janus_1b", "janus_pro_1b" or "janus_pro_7b": the dimensions
            of a new network.
        llm: a folder or hub id of a Llama causal LM that a new network's language model starts from.
        tower: the same of a SigLIP vision tower.
        processor: a checkpoint whose tokenizer and settings a new network takes.
        vae: a folder or hub id; by default that of the checkpoint. For a new Janus, the checkpoint whose VQ codec it
            takes.
        understanding_encoder, image_attention: variants of the network, see `JanusFlowConfig`; by default those of the
            checkpoint, or the paper's. What a changed network has in addition starts with random weights.
    """

    checkpoint: str | None = None
    preset: Preset | None = None
    llm: str | None = None
    tower: str | None = None
    processor: str | None = None
    vae: str | None = None
    understanding_encoder: Literal["siglip", "vae", "shared"] | None = None
    image_attention: Literal["causal", "bidirectional"] | None = None


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the LLM in place of its weights (PEFT).

    Attributes:
        rank: 0 trains the weights themselves.
        alpha: the adapters' product B A is multiplied by alpha / rank (`lora_alpha` of PEFT).
        dropout: share of the adapters' inputs that is dropped.
        tower: put adapters on f_enc too.
    """

    rank: Count = 0
    alpha: FromOne = 32
    dropout: Share = 0.0
    tower: bool = False
