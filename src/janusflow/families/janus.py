"""Janus and Janus-Pro (arXiv 2410.13848, 2501.17811): one LLM that generates the codes of a VQ codec one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval, Len
from transformers import JanusConfig

from janusflow.checkpoint.layouts import official_janus, transformers
from janusflow.checkpoint.layouts.paddle import paddle_layout
from janusflow.families.descendants import DESCENDANTS
from janusflow.families.family import Family
from janusflow.families.janusflow import DEEPSEEK
from janusflow.families.sizes import Long, Size, Sizes, Tower
from janusflow.model.janus import JanusForConditionalGeneration, without_words
from janusflow.model.janus_config import janus_1b, janus_pro_7b

GUIDANCE = 5.0  # as in the official script


@dataclass(frozen=True)
class JanusTower(Tower):
    """Sizes in `JanusVisionConfig`."""

    depth: Size
    projection_dim: Size
    num_image_tokens: Long


@dataclass(frozen=True)
class Codec:
    """Sizes in `JanusVQVAEConfig`."""

    embed_dim: Size
    num_embeddings: Long
    latent_channels: Size
    in_channels: Literal[3]
    out_channels: Literal[3]
    base_channels: Size
    channel_multiplier: Annotated[list[Annotated[int, Interval(ge=1, le=64)]], Len(1, 8)]
    num_res_blocks: Annotated[int, Interval(ge=1, le=64)]
    projection_dim: Size
    num_hidden_layers: Size
    image_token_embed_dim: Size


@dataclass(frozen=True)
class JanusSizes(Sizes):
    """Sizes in `JanusConfig`."""

    vision_config: JanusTower
    vq_config: Codec


def _picture(config: JanusConfig) -> tuple[int, str]:
    vq = config.vq_config
    side = int(vq.num_patches * 2 ** (len(vq.channel_multiplier) - 1))
    return side, f"{vq.num_patches**2} codes out of {vq.num_embeddings:,}"


FAMILY = Family(
    name="Janus",
    config=JanusConfig,
    network=JanusForConditionalGeneration,
    layouts=(transformers.LAYOUT, paddle_layout(official_janus.LAYOUT), official_janus.LAYOUT),
    pipeline="janusflow.pipelines.janus:Janus",
    seen_tokens=lambda config: int(config.vision_config.num_image_tokens),
    drawn_tokens=lambda config: int(config.vq_config.num_patches) ** 2,
    picture=_picture,
    latent=lambda config: None,
    losses=("codes",),
    without_words=without_words,
    parts={
        "model.vision_model": "f_enc: SigLIP tower",
        "model.aligner": "features to LLM embeddings",
        "model.generation_embeddings": "one vector per code of a picture",
        "model.generation_aligner": "codes to LLM embeddings",
        "model.language_model": "LLM",
        "lm_head": "LLM head",
        "model.generation_head": "LLM states to codes",
        "model.vqmodel": "VQ codec: codes to pixels and back",
    },
    sizes=JanusSizes,
    depths={
        "text_config.num_hidden_layers": 5,
        "vision_config.num_hidden_layers": 5,
        "vision_config.depth": 2,
        "vq_config.num_hidden_layers": 2,
    },
    text_generation=lambda processor: {  # needed by its `generate(generation_mode="image")`
        "guidance_scale": GUIDANCE,
        "generation_kwargs": {"boi_token_id": processor.image_start_id},
    },
    blocks="model.language_model.layers",
    quantized=("model.vision_model", "model.aligner", "model.generation_head", "lm_head"),
    trainable={
        "aligner": ("model.aligner.",),
        "generation": (
            "model.generation_embeddings.",
            "model.generation_aligner.",
            "model.generation_head.",
            "model.vqmodel.",
        ),
        "llm": ("model.language_model.", "lm_head."),
        "tower": ("model.vision_model.",),
    },
    never_run="model.vqmodel.",
    tower=lambda name: f"model.vision_model.{name.replace('.out_proj.', '.projection_layer.')}",
    codec="model.vqmodel",
    presets={"janus_1b": janus_1b, "janus_pro_1b": janus_1b, "janus_pro_7b": janus_pro_7b},
    licence=DEEPSEEK,
    all_released=True,
    library="transformers",
    descendants=DESCENDANTS,
)
