"""What the official layouts of JanusFlow and Janus share: LLM, SigLIP tower, names and the processor's files.

Released checkpoints name their SigLIP tower; the small golden ones list its sizes in `small_vision_tower`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from janusflow.families.layout import Source
from janusflow.folders import read_json
from janusflow.processing.processor import JanusFlowProcessor

TOWERS = {  # model_name -> width, depth, heads, patch size, MLP ratio
    "siglip_large_patch16_384": (1024, 24, 16, 16, 4.0),
    "siglip_large_patch16_256": (1024, 24, 16, 16, 4.0),
    "siglip_so400m_patch14_384": (1152, 27, 16, 14, 3.7362),
    "siglip_so400m_patch14_224": (1152, 27, 16, 14, 3.7362),
}
LLM_FIELDS = (  # fields of `language_config` in released files
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
OTHER_FIELDS = ("rms_norm_eps", "tie_word_embeddings", "hidden_act", "attention_bias", "mlp_bias")
THIRDS = {".self_attn.q_proj.": 0, ".self_attn.k_proj.": 1, ".self_attn.v_proj.": 2}


def check_classes(raw: dict[str, Any], classes: dict[str, str], family: str) -> None:
    """Check the class of each block of `config.json`.

    Raises:
        ValueError: for another class; names the block.
    """
    for block, known in classes.items():
        found = raw.get(block, {}).get("cls")
        if found is None or known not in str(found):
            raise ValueError(f"{block}.cls is {found!r}; {family} has {known!r}")


def check_same(found: Sequence[tuple[str, Any, Any]]) -> None:
    """Check values of the file, given as (name, value, what the other parts need).

    Raises:
        ValueError: for the first value that differs.
    """
    for name, value, wanted in found:
        if value != wanted:
            raise ValueError(f"{name} is {value!r}; the network's other parts need {wanted!r}")


def read_tower(raw: dict[str, Any], block: str) -> tuple[int, int, int, int, float, int]:
    """Return width, depth, heads, patch size, MLP ratio and picture size of the SigLIP tower in a block.

    Raises:
        ValueError: for a tower with an unknown name.
    """
    params, small = raw[block]["params"], raw.get("small_vision_tower")
    name = params.get("model_name")
    if small is not None:
        width, depth, heads = small["width"], small["layers"], small["heads"]
        patch, ratio = small["patch_size"], small.get("mlp_ratio", 4)
    elif name in TOWERS:
        width, depth, heads, patch, ratio = TOWERS[name]
    else:
        raise ValueError(f"{block} names the tower {name!r}; choose from {', '.join(TOWERS)}")
    select = params.get("select_layer", -1)
    depth = min(depth, depth + select + 1) if select <= 0 else min(depth, select)
    return width, depth, heads, patch, ratio, params.get("image_size", 384)


def check_tower(vision: Any) -> None:
    """Check that the official code has a tower with these activations and norms, which `config.json` does not name.

    Raises:
        ValueError: for others.
    """
    for name, released in (("hidden_act", "gelu"), ("layer_norm_eps", 1e-6)):
        if (found := getattr(vision, name)) != released:
            raise ValueError(f"vision_config.{name} is {found!r}; the official layout only has {released!r}")


def mlp_ratio(width: int, intermediate: int) -> float:
    """Return the ratio r with int(width * r) = intermediate, as the official code computes it."""
    ratio = intermediate / width
    return ratio if int(width * ratio) == intermediate else math.nextafter(ratio, math.inf)


def official_tower(vision: Any, ratio: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a tower in `config.json`, and its sizes if no released tower has them."""
    sizes = (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size)
    name, spelled = (
        "siglip_large_patch16_384",
        dict(zip(("width", "layers", "heads", "patch_size"), sizes, strict=True)),
    )
    more = {"small_vision_tower": {**spelled, "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio}}
    for known, (*released, width) in TOWERS.items():
        same = int(sizes[0] * width) == round(sizes[0] * ratio)
        if sizes == tuple(released) and same and known.endswith(f"_{vision.image_size}"):
            name, more = known, {}
    return {"image_size": vision.image_size, "model_name": name, "select_feature": "same", "select_layer": -1}, more


def official_config(
    llm: LlamaConfig,
    dtype: str,
    classes: dict[str, str],
    blocks: dict[str, tuple[str, dict[str, Any]]],
    spelled: dict[str, Any],
) -> dict[str, Any]:
    """Return the released form of `config.json`.

    Args:
        blocks: name to model type and parameters.
        spelled: values without a released name.
    """
    fields = {field: getattr(llm, field) for field in LLM_FIELDS}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "language_config": {"model_type": "llama", **fields, "torch_dtype": dtype, **_extras(llm)},
        **{
            block: {"cls": classes[block], "model_type": kind, "params": params}
            for block, (kind, params) in blocks.items()
        },
        **spelled,
    }


def _extras(llm: LlamaConfig) -> dict[str, Any]:
    """Return other fields that shape the LLM and differ from their defaults, with the names of older transformers."""
    plain = LlamaConfig()
    extras = {name: getattr(llm, name) for name in OTHER_FIELDS if getattr(llm, name) != getattr(plain, name)}
    if llm.head_dim != llm.hidden_size // llm.num_attention_heads:
        extras["head_dim"] = llm.head_dim
    rope = dict(llm.rope_parameters or {})
    if (theta := rope.pop("rope_theta", 10000.0)) != 10000.0:
        extras["rope_theta"] = theta
    if rope.get("rope_type", "default") != "default":
        extras["rope_scaling"] = rope
    return extras


def tower_source(official: str, others: Sequence[tuple[str, str]]) -> Source:
    """Return the tensors of a SigLIP tower's parameter: query, key and value are fused, `others` are renamed."""
    for part, third in THIRDS.items():
        if part in official:
            return Source((official.replace(part, ".attn.qkv."),), third)
    for ours, theirs in others:
        official = official.replace(ours, theirs)
    return Source((official,))


def renamed(name: str, prefixes: Sequence[tuple[str, str]]) -> str:
    """Replace the first matching prefix of a name.

    Raises:
        KeyError: if none matches.
    """
    for ours, theirs in prefixes:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def write_official(raw: dict[str, Any], processor: JanusFlowProcessor, folder: Path) -> None:
    """Write `config.json`, and the processor's files with the fields of released ones.

    The tokenizer's class is that of older versions of transformers.
    """
    text, image = processor.text, processor.image
    processor.save_pretrained(folder)
    text_fields = {
        "add_special_token": False,
        "ignore_id": -100,
        "image_tag": text.image_tag,
        "image_start_tag": text.image_start_tag,
        "image_end_tag": text.image_end_tag,
        "mask_prompt": True,
        "num_image_tokens": text.num_image_tokens,
        "processor_class": "VLChatProcessor",
        "sft_format": text.sft_format,
        "system_prompt": text.system_prompt,
    }
    image_fields = {
        "background_color": list(image.background),
        "do_normalize": image.do_normalize,
        "image_mean": list(image.image_mean),
        "image_processor_type": "VLMImageProcessor",
        "image_size": image.image_size,
        "image_std": list(image.image_std),
        "min_size": image.min_size,
        "processor_class": "VLChatProcessor",
        "rescale_factor": image.rescale_factor,
    }
    special = dict(processor.tokenizer.special_tokens_map)
    tokenizer = {**read_json(folder / "tokenizer_config.json"), **special, "tokenizer_class": "LlamaTokenizerFast"}
    files = {
        "config.json": raw,
        "processor_config.json": text_fields,
        "preprocessor_config.json": image_fields,
        "special_tokens_map.json": special,
        "tokenizer_config.json": tokenizer,
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
