"""JanusFlow (arXiv 2411.07975): one LLM with rectified flow on the latents of a VAE."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from annotated_types import Interval

from janusflow.checkpoint.layouts import official
from janusflow.checkpoint.layouts.paddle import paddle_layout
from janusflow.config import JanusFlowConfig, janusflow_1b, tiny
from janusflow.families.family import Family, Licence
from janusflow.families.layout import own_layout
from janusflow.families.sizes import Count, Epsilon, Id, Side, Size, Sizes
from janusflow.model.janusflow import JanusFlowForConditionalGeneration

DEEPSEEK = Licence(
    title="DeepSeek Model License",
    name="deepseek",
    link="https://github.com/deepseek-ai/DeepSeek-LLM/blob/HEAD/LICENSE-MODEL",
    notice="The released weights of the Janus family and their derivatives are under the",
)
LEAST_TENSORS = 5  # in a layer or block


@dataclass(frozen=True)
class JanusFlowSizes(Sizes):
    """Sizes in `JanusFlowConfig`."""

    latent_channels: Size
    latent_downscale: Annotated[int, Interval(ge=1, le=256)]
    latent_patch_size: Annotated[int, Interval(ge=2, le=64)]
    generation_encoder_width: Size
    generation_encoder_depth: Count
    generation_decoder_width: Size
    generation_decoder_depth: Count
    generation_norm_eps: Epsilon
    generation_use_bias: bool
    image_size: Side
    begin_image_token_id: Id
    end_image_token_id: Id
    understanding_encoder: Literal["siglip", "vae", "shared"]
    image_attention: Literal["causal", "bidirectional"]
    generation_merge_size: Annotated[int, Interval(ge=1, le=16)]


FAMILY = Family(
    name="JanusFlow",
    config=JanusFlowConfig,
    network=JanusFlowForConditionalGeneration,
    layouts=(own_layout(JanusFlowConfig), paddle_layout(official.LAYOUT), official.LAYOUT),
    pipeline="janusflow.pipelines.janusflow:JanusFlow",
    seen_tokens=lambda config: config.num_understanding_tokens,
    drawn_tokens=lambda config: config.num_generation_tokens,
    picture=lambda config: (
        config.image_size,
        f"latent {config.latent_channels}x{config.latent_size}x{config.latent_size}",
    ),
    parts={
        "understanding_encoder": "f_enc: SigLIP tower and aligner",
        "generation_encoder": "g_enc: latent and time to LLM embeddings",
        "language_model": "LLM",
        "lm_head": "LLM head",
        "generation_decoder": "g_dec: LLM states to velocity",
    },
    sizes=JanusFlowSizes,
    depths=dict.fromkeys(
        (
            "text_config.num_hidden_layers",
            "vision_config.num_hidden_layers",
            "generation_encoder_depth",
            "generation_decoder_depth",
        ),
        LEAST_TENSORS,
    ),
    token_ids={
        "image_token_id": "image_id",
        "begin_image_token_id": "image_start_id",
        "end_image_token_id": "image_end_id",
    },
    quantized=("understanding_encoder", "lm_head"),
    trainable={
        "aligner": (
            "understanding_encoder.aligner.",
            "understanding_encoder.latent_encoder.",
            "understanding_encoder.begin_embedding",
        ),
        "generation": ("generation_encoder.", "generation_decoder."),
        "llm": ("language_model.", "lm_head."),
        "tower": ("understanding_encoder.tower.",),
    },
    never_run=".tower.head.",  # SigLIP's pool head, which only official checkpoints contain
    presets={"janusflow_1b": janusflow_1b, "janusflow_1b_256": partial(janusflow_1b, 256), "tiny": tiny},
    separate_vae=True,
    licence=DEEPSEEK,
)
