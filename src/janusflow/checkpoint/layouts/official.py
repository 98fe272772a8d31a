"""The official layout of JanusFlow: the released `config.json` and parameter names, translated into ours and back.

In the small golden checkpoints, `small_latent_downscale` is the factor of a VAE other than the SDXL-VAE (8). The
released weights and their derivatives are under the DeepSeek Model License.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import LlamaConfig

from janusflow.checkpoint.layouts import official_parts as parts
from janusflow.config import VARIANTS, JanusFlowConfig, siglip_config
from janusflow.families.layout import Layout, Source

CLASSES = {
    "vision_und_enc_config": "CLIPVisionTower",
    "vision_gen_enc_config": "ShallowUViTEncoder",
    "vision_gen_dec_config": "ShallowUViTDecoder",
}


def read_config(
    raw: dict[str, Any], token_ids: dict[str, int], names: Collection[str] | None = None
) -> JanusFlowConfig:
    """Translate an official `config.json` into our configuration.

    Args:
        token_ids: ids of the tokenizer's special tokens, which the official configuration lacks.
        names: names of the stored tensors, if known. SigLIP's unused attention-pool head is kept if it is stored, so
            that the checkpoint can be written back without loss.

    Raises:
        ValueError: for a block that JanusFlow does not have; names it and its class.
    """
    parts.check_classes(raw, CLASSES, "JanusFlow")
    encoder, decoder = raw["vision_gen_enc_config"]["params"], raw["vision_gen_dec_config"]["params"]
    llm = LlamaConfig(**{k: v for k, v in raw.get("language_config", {}).items() if k != "cls"})
    width, depth, heads, patch, ratio, size = parts.read_tower(raw, "vision_und_enc_config")
    pool_head = names is None or any("attn_pool" in name for name in names)
    vision = siglip_config(
        width=width, depth=depth, heads=heads, patch_size=patch, image_size=size, mlp_ratio=ratio, pool_head=pool_head
    )
    _check_shapes(encoder, decoder, llm)
    return JanusFlowConfig(
        text_config=llm,
        vision_config=vision,
        latent_channels=encoder["input_channels"],
        latent_downscale=raw.get("small_latent_downscale", 8),
        latent_patch_size=encoder["stride"],
        generation_encoder_width=encoder["block_out_channels"][-1],
        generation_encoder_depth=encoder.get("layers_in_middle", 2) if encoder.get("use_mid_block", True) else 0,
        generation_decoder_width=decoder["in_channels"],
        generation_decoder_depth=decoder.get("layers_in_middle", 2) if decoder.get("use_mid_block", True) else 0,
        generation_norm_eps=encoder.get("norm_eps", 1e-6),
        generation_use_bias=encoder.get("use_bias", True),
        image_size=vision.image_size,
        image_token_id=token_ids["<image_placeholder>"],
        begin_image_token_id=token_ids["<begin_of_image>"],
        end_image_token_id=token_ids["<end_of_image>"],
        tie_word_embeddings=llm.tie_word_embeddings,
        dtype=raw.get("torch_dtype") or raw.get("dtype") or raw.get("language_config", {}).get("torch_dtype"),
    )


def _check_shapes(encoder: dict[str, Any], decoder: dict[str, Any], llm: LlamaConfig) -> None:
    """Check the assumptions of our g_enc and g_dec against the values of the file."""
    parts.check_same(
        [
            ("vision_gen_enc_config.kernel_size", encoder.get("kernel_size", 7), encoder["stride"]),
            ("vision_gen_enc_config.padding", encoder.get("padding") or 0, 0),
            ("vision_gen_enc_config.hidden_size", encoder["hidden_size"], llm.hidden_size),
            ("vision_gen_dec_config.hidden_size", decoder["hidden_size"], llm.hidden_size),
            ("vision_gen_dec_config.out_channels", decoder["out_channels"], encoder["input_channels"]),
            ("vision_gen_dec_config.block_out_channels", decoder["block_out_channels"], encoder["block_out_channels"]),
            ("vision_gen_dec_config.upsamples", decoder["upsamples"], encoder["stride"].bit_length() - 1),
            ("vision_gen_dec_config.norm_eps", decoder.get("norm_eps", 1e-6), encoder.get("norm_eps", 1e-6)),
            ("vision_gen_dec_config.use_bias", decoder.get("use_bias", True), encoder.get("use_bias", True)),
        ]
    )


TOWER = "vision_und_enc_model.vision_tower."
PREFIXES = (  # ours -> official; the first match counts
    ("language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("understanding_encoder.begin_embedding", "beg_of_und_embed"),
    ("understanding_encoder.aligner.", "vision_und_enc_aligner."),
    ("understanding_encoder.tower.embeddings.patch_embedding.", TOWER + "patch_embed.proj."),
    ("understanding_encoder.tower.embeddings.position_embedding.weight", TOWER + "pos_embed"),
    ("understanding_encoder.tower.encoder.layers.", TOWER + "blocks."),
    ("understanding_encoder.tower.post_layernorm.", TOWER + "norm."),
    ("understanding_encoder.tower.head.", TOWER + "attn_pool."),
    ("generation_encoder.patchify.", "vision_gen_enc_model.in_conv."),
    ("generation_encoder.time_embedding.", "vision_gen_enc_model.time_embed."),
    ("generation_encoder.blocks.", "vision_gen_enc_model.mid_block.res_blocks."),
    ("generation_encoder.aligner.", "vision_gen_enc_aligner."),
    ("generation_decoder.norm.", "vision_gen_dec_aligner_norm."),
    ("generation_decoder.aligner.", "vision_gen_dec_aligner."),
    ("generation_decoder.inner_norm.", "vision_gen_dec_model.input_norm."),
    ("generation_decoder.blocks.", "vision_gen_dec_model.mid_block.res_blocks."),
    ("generation_decoder.unpatchify.", "vision_gen_dec_model.out_convs."),
)
TOWER_PARTS = (
    (".self_attn.out_proj.", ".attn.proj."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    ("attn_pool.attention.out_proj.", "attn_pool.proj."),
    ("attn_pool.layernorm.", "attn_pool.norm."),
    ("attn_pool.probe", "attn_pool.latent"),
)
GENERATION_PARTS = (
    (".expand.", ".channelwise_linear_1."),
    (".contract.", ".channelwise_linear_2."),
    (".response_norm.", ".channelwise_norm."),
    (".modulation.", ".cond_embeds_mapper."),
    (".conv.", ".unpatch_conv."),
)


def source(name: str) -> Source:
    """Return the official tensors that our parameter `name` consists of."""
    official = parts.renamed(name, PREFIXES)
    if official.startswith(TOWER):
        return _tower_source(official)
    if official.startswith("vision_gen_"):
        for ours, theirs in GENERATION_PARTS:
            official = official.replace(ours, theirs)
    return Source((official,))


def _tower_source(official: str) -> Source:
    """Translate SigLIP; the pool head's query is separate from its key and value."""
    if "attn_pool.attention.in_proj_" in official:
        leaf = official.rsplit("_", 1)[1]
        return Source((TOWER + "attn_pool.q." + leaf, TOWER + "attn_pool.kv." + leaf))
    return parts.tower_source(official, TOWER_PARTS)


# --- write the configuration ----------------------------------------------------------------------------------------


def check(config: JanusFlowConfig) -> None:
    """Check that the official code has this network.

    Raises:
        ValueError: for a variant of the network or of its tower.
    """
    for name, released in VARIANTS.items():
        if (given := getattr(config, name)) != released:
            raise ValueError(f"{name} is {given!r}; the official layout only has {released!r}")
    parts.check_tower(config.vision_config)


def official_config(config: JanusFlowConfig, dtype: str) -> dict[str, Any]:
    """Return the released form of `config.json`; a tower without a released name is listed by its sizes.

    Raises:
        ValueError: see `check`.
    """
    check(config)
    llm, vision = config.text_config, config.vision_config
    width, patch = config.generation_encoder_width, config.latent_patch_size
    shared = {
        "block_out_channels": [width],
        "hidden_size": llm.hidden_size,
        "norm_eps": config.generation_norm_eps,
        "use_bias": config.generation_use_bias,
    }
    encoder = {
        **shared,
        "elementwize_affine": True,
        "input_channels": config.latent_channels,
        "kernel_size": patch,
        "layers_in_middle": max(config.generation_encoder_depth, 1),
        "num_extra_tensors": 5,
        "padding": 0,
        "stride": patch,
        "use_mid_block": config.generation_encoder_depth > 0,
    }
    decoder = {
        **shared,
        "elementwise_affine": True,
        "in_channels": config.generation_decoder_width,
        "layers_in_middle": max(config.generation_decoder_depth, 1),
        "out_channels": config.latent_channels,
        "upsamples": patch.bit_length() - 1,
        "use_mid_block": config.generation_decoder_depth > 0,
    }
    tower, spelled = parts.official_tower(vision, parts.mlp_ratio(vision.hidden_size, vision.intermediate_size))
    if config.latent_downscale != 8:
        spelled["small_latent_downscale"] = config.latent_downscale
    blocks = {
        "vision_und_enc_config": ("vision_und_enc", tower),
        "vision_gen_enc_config": ("vision_gen_enc", dict(sorted(encoder.items()))),
        "vision_gen_dec_config": ("vision_gen_dec", dict(sorted(decoder.items()))),
    }
    return parts.official_config(llm, dtype, CLASSES, blocks, spelled)


LAYOUT = Layout(
    "official",
    detect=lambda raw, files: raw.get("model_type") == "multi_modality" and "vision_gen_enc_config" in raw,
    read_config=read_config,
    source=source,
    write=lambda config, processor, folder, dtype: parts.write_official(
        official_config(config, dtype), processor, folder
    ),
    check=check,
    released=True,
)
