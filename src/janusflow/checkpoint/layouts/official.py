"""The official layout: how the released `config.json` and parameter names translate into ours.

A released checkpoint names its SigLIP tower; the small golden ones spell its sizes out in `small_vision_tower`. In the
same way `small_latent_downscale` stands there for a VAE of another factor than the SDXL-VAE's 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig

from janusflow.config import JanusFlowConfig, siglip_config

TOWERS = {  # model_name -> width, depth, heads, patch size, MLP ratio
    "siglip_large_patch16_384": (1024, 24, 16, 16, 4.0),
    "siglip_large_patch16_256": (1024, 24, 16, 16, 4.0),
    "siglip_so400m_patch14_384": (1152, 27, 16, 14, 3.7362),
    "siglip_so400m_patch14_224": (1152, 27, 16, 14, 3.7362),
}
LLM_FIELDS = (  # of `language_config` in released files
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
CLASSES = {
    "vision_und_enc_config": "CLIPVisionTower",
    "vision_gen_enc_config": "ShallowUViTEncoder",
    "vision_gen_dec_config": "ShallowUViTDecoder",
}


def is_official(raw: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of an official JanusFlow (not Janus) checkpoint."""
    return raw.get("model_type") == "multi_modality" and "vision_gen_enc_config" in raw


def read_config(raw: dict[str, Any], token_ids: dict[str, int], *, pool_head: bool = True) -> JanusFlowConfig:
    """Our configuration from an official `config.json`.

    Args:
        raw: the parsed file.
        token_ids: ids of the tokenizer's special tokens; the official layout keeps them there alone.
        pool_head: whether the weights hold SigLIP's unused attention-pool head; it is kept, so that the checkpoint
            can be written back without loss.

    Raises:
        ValueError: naming the block and what it holds, if it is not one that JanusFlow has.
    """
    for block, known in CLASSES.items():
        found = raw.get(block, {}).get("cls")
        if found is None or known not in str(found):
            raise ValueError(f"{block}.cls is {found!r}; JanusFlow has {known!r}")
    encoder, decoder = raw["vision_gen_enc_config"]["params"], raw["vision_gen_dec_config"]["params"]
    llm = LlamaConfig(**{k: v for k, v in raw.get("language_config", {}).items() if k != "cls"})
    vision = _tower(raw, pool_head)
    _check_shapes(encoder, decoder, llm)
    patch = encoder["stride"]
    return JanusFlowConfig(
        text_config=llm,
        vision_config=vision,
        latent_channels=encoder["input_channels"],
        latent_downscale=raw.get("small_latent_downscale", 8),
        latent_patch_size=patch,
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


def _tower(raw: dict[str, Any], pool_head: bool) -> Any:
    params = raw["vision_und_enc_config"]["params"]
    small = raw.get("small_vision_tower")
    if small is not None:
        width, depth, heads = small["width"], small["layers"], small["heads"]
        patch, ratio = small["patch_size"], small.get("mlp_ratio", 4)
    elif params.get("model_name") in TOWERS:
        width, depth, heads, patch, ratio = TOWERS[params["model_name"]]
    else:
        name = params.get("model_name")
        raise ValueError(f"vision_und_enc_config names the tower {name!r}; known are {', '.join(TOWERS)}")
    select = params.get("select_layer", -1)
    depth = min(depth, depth + select + 1) if select <= 0 else min(depth, select)
    size = params.get("image_size", 384)
    return siglip_config(
        width=width, depth=depth, heads=heads, patch_size=patch, image_size=size, mlp_ratio=ratio, pool_head=pool_head
    )


def _check_shapes(encoder: dict[str, Any], decoder: dict[str, Any], llm: LlamaConfig) -> None:
    """What our g_enc and g_dec take for granted, checked with the values of the file."""
    same = [
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
    for name, found, wanted in same:
        if found != wanted:
            raise ValueError(f"{name} amounts to {found!r}; the network's other parts need {wanted!r}")


def llm_extras(llm: LlamaConfig) -> dict[str, Any]:
    """What the LLM has beside the released fields, where it differs from their defaults."""
    extras: dict[str, Any] = {}
    if llm.rms_norm_eps != 1e-6:
        extras["rms_norm_eps"] = llm.rms_norm_eps
    if llm.tie_word_embeddings:
        extras["tie_word_embeddings"] = True
    if llm.head_dim != llm.hidden_size // llm.num_attention_heads:
        extras["head_dim"] = llm.head_dim
    rope = llm.rope_parameters or {}
    if rope.get("rope_theta", 10000.0) != 10000.0:
        extras["rope_theta"] = rope["rope_theta"]
    return extras


@dataclass(frozen=True)
class Source:
    """Where one of our parameters lies in the official layout.

    Attributes:
        names: official tensors, concatenated along their first axis.
        third: which third of the rows is meant (0, 1, 2: query, key, value), or None for all of them.
    """

    names: tuple[str, ...]
    third: int | None = None


TOWER = "vision_und_enc_model.vision_tower."
PREFIXES = (  # ours -> official; the first that fits counts
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
THIRDS = {".self_attn.q_proj.": 0, ".self_attn.k_proj.": 1, ".self_attn.v_proj.": 2}


def renamed(name: str, prefixes: Sequence[tuple[str, str]]) -> str:
    """A name with the first prefix that fits replaced.

    Raises:
        KeyError: if none does.
    """
    for ours, theirs in prefixes:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def source(name: str) -> Source:
    """Which official tensors make up our parameter `name`."""
    official = renamed(name, PREFIXES)
    if official.startswith(TOWER):
        return _tower_source(official)
    if official.startswith("vision_gen_"):
        for ours, theirs in GENERATION_PARTS:
            official = official.replace(ours, theirs)
    return Source((official,))


def _tower_source(official: str) -> Source:
    """SigLIP: query, key and value are fused; the pool head's query stands apart from its key and value."""
    for part, third in THIRDS.items():
        if part in official:
            return Source((official.replace(part, ".attn.qkv."),), third)
    if "attn_pool.attention.in_proj_" in official:
        leaf = official.rsplit("_", 1)[1]
        return Source((TOWER + "attn_pool.q." + leaf, TOWER + "attn_pool.kv." + leaf))
    for ours, theirs in TOWER_PARTS:
        official = official.replace(ours, theirs)
    return Source((official,))
