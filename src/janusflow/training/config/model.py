"""The network that is trained, and adapters in place of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from janusflow.data.constraints import NonNegativeInt, PositiveInt, Share

Preset: TypeAlias = Literal["janusflow_1b", "janusflow_1b_256", "tiny", "janus_1b", "janus_pro_1b", "janus_pro_7b"]


@dataclass(frozen=True)
class ModelConfig:
    """The network that is trained.

    Attributes:
        checkpoint: "tiny", a folder or a hub id to start from. Without one, the network starts from `preset`.
        preset: dimensions of a new network: "janusflow_1b", "janusflow_1b_256", "tiny", "janus_1b", "janus_pro_1b" or
            "janus_pro_7b".
        llm: folder or hub id of a Llama causal LM that a new network's language model starts from.
        tower: folder or hub id of a SigLIP vision tower that a new network's tower starts from.
        processor: checkpoint whose tokenizer and settings a new network uses.
        vae: folder or hub id of the VAE, by default the checkpoint's. For a new Janus, the checkpoint whose VQ codec it
            uses.
        understanding_encoder, image_attention: variants of the network, see `JanusFlowConfig`; by default those of the
            checkpoint, or the paper's. Parts that a variant adds start with random weights.
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
        rank: rank of the adapters; 0 trains the weights themselves.
        alpha: the adapters' product B A is multiplied by alpha / rank (`lora_alpha` of PEFT).
        dropout: share of the adapters' inputs that are dropped.
        tower: put adapters on f_enc too.
    """

    rank: NonNegativeInt = 0
    alpha: PositiveInt = 32
    dropout: Share = 0.0
    tower: bool = False
