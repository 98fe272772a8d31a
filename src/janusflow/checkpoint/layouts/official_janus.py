"""The official layout of Janus and Janus-Pro: released `config.json` and names, translated to transformers' and back.

transformers' network has no attention-pool head in SigLIP and no usage statistics in the codebook; both are stored but
unused, and `UNUSED` names them. The small golden checkpoints list the codec's sizes in `small_vq`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from janusflow.checkpoint.layouts import official_parts as parts
from janusflow.families.layout import Layout, Source

CLASSES = {
    "vision_config": "CLIPVisionTower",
    "aligner_config": "MlpProjector",
    "gen_vision_config": "VQ-16",
    "gen_aligner_config": "MlpProjector",
    "gen_head_config": "vision_head",
}
UNUSED = ("vision_model.vision_tower.attn_pool.", "gen_vision_model.quantize.codebook_used")
RELEASED_VQ = {  # VQ-16 of LlamaGen
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 256,
}


def read_config(raw: dict[str, Any], token_ids: dict[str, int], names: Collection[str] | None = None) -> JanusConfig:
    """Translate an official `config.json` into transformers' configuration.

    Args:
        token_ids: ids of the tokenizer's special tokens, which the official configuration lacks.
        names: names of the stored tensors, which are not used.

    Raises:
        ValueError: for a block that Janus does not have; names it and its class.
    """
    parts.check_classes(raw, CLASSES, "Janus")
    llm = LlamaConfig(**{"tie_word_embeddings": False, **raw["language_config"]})
    aligner, gen_aligner = raw["aligner_config"]["params"], raw["gen_aligner_config"]["params"]
    head, codes = raw["gen_head_config"]["params"], raw["gen_vision_config"]["params"]
    _check_shapes(aligner, gen_aligner, head, codes, llm)
    vq = raw.get("small_vq", RELEASED_VQ)
    vision = _tower(raw, aligner)
    return JanusConfig(
        text_config=llm.to_dict(),
        vision_config=vision,
        vq_config=JanusVQVAEConfig(
            embed_dim=codes["n_embed"],
            num_embeddings=codes["image_token_size"],
            latent_channels=vq["z_channels"],
            base_channels=vq["base_channels"],
            channel_multiplier=list(vq["channel_multiplier"]),
            num_res_blocks=vq["num_res_blocks"],
            projection_dim=gen_aligner["n_embed"],
            num_hidden_layers=gen_aligner["depth"],
            image_token_embed_dim=head["n_embed"],
        ).to_dict(),
        image_token_id=token_ids["<image_placeholder>"],
        tie_word_embeddings=llm.tie_word_embeddings,
        dtype=raw.get("torch_dtype") or raw.get("dtype") or raw["language_config"].get("torch_dtype"),
    )


def _tower(raw: dict[str, Any], aligner: dict[str, Any]) -> dict[str, Any]:
    width, depth, heads, patch, ratio, size = parts.read_tower(raw, "vision_config")
    if aligner["input_dim"] != width:
        raise ValueError(f"aligner_config takes width {aligner['input_dim']}, but the tower has {width}")
    return JanusVisionConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=size,
        patch_size=patch,
        mlp_ratio=ratio,
        projection_dim=aligner["n_embed"],
        depth=aligner["depth"],
        num_image_tokens=(size // patch) ** 2,
    ).to_dict()


def _check_shapes(
    aligner: dict[str, Any], gen_aligner: dict[str, Any], head: dict[str, Any], codes: dict[str, Any], llm: LlamaConfig
) -> None:
    """Check the assumptions of transformers' network against the values of the file."""
    parts.check_same(
        [
            ("aligner_config.projector_type", aligner.get("projector_type"), "mlp_gelu"),
            ("gen_aligner_config.projector_type", gen_aligner.get("projector_type"), "mlp_gelu"),
            ("aligner_config.n_embed", aligner["n_embed"], llm.hidden_size),
            ("gen_aligner_config.n_embed", gen_aligner["n_embed"], llm.hidden_size),
            ("gen_aligner_config.input_dim", gen_aligner["input_dim"], codes["n_embed"]),
            ("gen_head_config.n_embed", head["n_embed"], llm.hidden_size),
            ("gen_head_config.image_token_embed", head["image_token_embed"], gen_aligner["n_embed"]),
            ("gen_head_config.image_token_size", head["image_token_size"], codes["image_token_size"]),
        ]
    )


# --- names ----------------------------------------------------------------------------------------------------------

TOWER = "vision_model.vision_tower."
CODEC = "gen_vision_model."
PREFIXES = (  # transformers -> official; the first match counts
    ("lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("model.vision_model.embeddings.patch_embedding.", TOWER + "patch_embed.proj."),
    ("model.vision_model.embeddings.position_embedding.weight", TOWER + "pos_embed"),
    ("model.vision_model.encoder.layers.", TOWER + "blocks."),
    ("model.vision_model.post_layernorm.", TOWER + "norm."),
    ("model.aligner.", "aligner."),
    ("model.generation_aligner.", "gen_aligner."),
    ("model.generation_embeddings.", "gen_embed."),
    ("model.generation_head.proj_out.", "gen_head.output_mlp_projector."),
    ("model.generation_head.vision_head.", "gen_head.vision_head."),
    ("model.vqmodel.", CODEC),
)
TOWER_PARTS = (
    (".self_attn.projection_layer.", ".attn.proj."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
)
CODEC_PARTS = (
    (r"\.(?:down|up)\.(\d+)\.block\.", r".conv_blocks.\1.res."),
    (r"\.(?:down|up)\.(\d+)\.", r".conv_blocks.\1."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.block_2\.", ".mid.2."),
)


def source(name: str) -> Source:
    """Return the official tensors that the parameter `name` of transformers' Janus consists of."""
    official = parts.renamed(name, PREFIXES)
    if official.startswith(TOWER):
        return parts.tower_source(official, TOWER_PARTS)
    if official.startswith(CODEC):
        for pattern, replacement in CODEC_PARTS:
            official = re.sub(pattern, replacement, official)
    elif official.startswith(("aligner.", "gen_aligner.")):
        official = official.replace("aligner.fc1.", "aligner.layers.0.")
        # Linear layers and GELUs alternate in the official list.
        official = re.sub(r"hidden_layers\.(\d+)\.", lambda found: f"layers.{2 * int(found[1]) + 2}.", official)
    return Source((official,))


# --- write the configuration ----------------------------------------------------------------------------------------


def check(config: JanusConfig) -> None:
    """Check that the official code has this network.

    Raises:
        ValueError: for a variant of the tower.
    """
    parts.check_tower(config.vision_config)


def official_config(config: JanusConfig, dtype: str) -> dict[str, Any]:
    """Return the released form of `config.json`; other sizes are listed as in the golden checkpoints.

    Raises:
        ValueError: see `check`.
    """
    check(config)
    llm, vision, vq = config.text_config, config.vision_config, config.vq_config
    tower, spelled = parts.official_tower(vision, vision.mlp_ratio)
    codec = {
        "base_channels": vq.base_channels,
        "channel_multiplier": list(vq.channel_multiplier),
        "num_res_blocks": vq.num_res_blocks,
        "z_channels": vq.latent_channels,
    }
    if codec != RELEASED_VQ:
        spelled["small_vq"] = {**codec, "codebook_size": vq.num_embeddings, "codebook_embed_dim": vq.embed_dim}
    blocks = {
        "aligner_config": ("aligner", _projector(vision.depth, vision.hidden_size, vision.projection_dim)),
        "gen_aligner_config": ("gen_aligner", _projector(vq.num_hidden_layers, vq.embed_dim, vq.projection_dim)),
        "gen_head_config": (
            "gen_head",
            {
                "image_token_embed": vq.projection_dim,
                "image_token_size": vq.num_embeddings,
                "n_embed": vq.image_token_embed_dim,
            },
        ),
        "gen_vision_config": ("gen_vision", {"image_token_size": vq.num_embeddings, "n_embed": vq.embed_dim}),
        "vision_config": ("vision", tower),
    }
    return parts.official_config(llm, dtype, CLASSES, blocks, spelled)


def _projector(depth: int, width: int, to: int) -> dict[str, Any]:
    return {"depth": depth, "input_dim": width, "n_embed": to, "projector_type": "mlp_gelu"}


LAYOUT = Layout(
    "official",
    detect=lambda raw, files: raw.get("model_type") == "multi_modality" and "gen_vision_config" in raw,
    read_config=read_config,
    source=source,
    write=lambda config, processor, folder, dtype: parts.write_official(
        official_config(config, dtype), processor, folder
    ),
    check=check,
    released=True,
    unused=UNUSED,
)
