"""Configurations of Janus: from a given LLM, SigLIP tower and VQ codec, and presets."""

from __future__ import annotations

from typing import Any

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from janusflow.config import janusflow_1b


def janus_config(text: LlamaConfig, tower: Any, *, image_token_id: int = 100581, **codec: Any) -> JanusConfig:
    """Build a configuration of an LLM, a SigLIP tower and a VQ codec, joined by two-layer projectors.

    Args:
        text: the LLM.
        tower: a SigLIP vision configuration. A generated picture has a code for each of its patches.
        image_token_id: id of `<image_placeholder>`.
        **codec: fields of `JanusVQVAEConfig`; by default the released codec's.

    Example:
        >>> janus_1b().vq_config.num_patches
        24
    """
    width, size, patch = text.hidden_size, tower.image_size, tower.patch_size
    vision = JanusVisionConfig(
        hidden_size=tower.hidden_size,
        num_hidden_layers=tower.num_hidden_layers,
        num_attention_heads=tower.num_attention_heads,
        image_size=size,
        patch_size=patch,
        mlp_ratio=tower.intermediate_size / tower.hidden_size,
        hidden_act=tower.hidden_act,
        layer_norm_eps=tower.layer_norm_eps,
        projection_dim=width,
        num_image_tokens=(size // patch) ** 2,
    )
    vq = JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width, **codec)
    text.tie_word_embeddings = False
    return JanusConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        vq_config=vq.to_dict(),
        image_token_id=image_token_id,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )


def janus_1b() -> JanusConfig:
    """Return the dimensions of Janus-1.3B, which Janus-Pro-1B shares."""
    like = janusflow_1b()
    return janus_config(like.text_config, like.vision_config)


def janus_pro_7b() -> JanusConfig:
    """Return the dimensions of Janus-Pro-7B."""
    like = janusflow_1b()
    larger = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "head_dim": 128}
    larger |= {"num_attention_heads": 32, "num_key_value_heads": 32}
    return janus_config(LlamaConfig(**{**like.text_config.to_dict(), **larger}), like.vision_config)
