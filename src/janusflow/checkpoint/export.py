"""Writes the official layout back: released names, fused projections, the released form of `config.json`.

A checkpoint that came from there returns to the bit. The released weights stand under the DeepSeek Model License, and
so does what is made of them: the licence file of the source folder, if it has one, travels along.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from janusflow.checkpoint.layouts.official import CLASSES, LLM_FIELDS, TOWERS, Source, llm_extras, source
from janusflow.config import JanusFlowConfig
from janusflow.folders import put_together, read_json
from janusflow.processing.processor import JanusFlowProcessor


def export_official(
    config: JanusFlowConfig,
    weights: Mapping[str, Tensor],
    processor: JanusFlowProcessor,
    folder: str | Path,
    *,
    licence: Path | None = None,
) -> Path:
    """A folder in the official layout, written beside its place and then put there.

    Args:
        config: of the network.
        weights: its parameters by our names, in the dtype that is written.
        processor: of the model.
        folder: where to; older weights leave.
        licence: a file that travels along.
    """
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    with put_together(Path(folder)) as beside:
        processor.save_pretrained(beside)
        (beside / "config.json").write_text(json.dumps(official_config(config, dtype), indent=1) + "\n")
        write_processor(processor, beside)
        save_file(official_weights(weights), beside / "model.safetensors", metadata={"format": "pt"})
        if licence is not None:
            shutil.copy(licence, beside)
    return Path(folder)


def official_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under their official names, in the official shapes."""
    return dict(sorted(official_tensors(weights, weights.__getitem__)))


def official_tensors(
    names: Iterable[str], read: Callable[[str], Tensor], translate: Callable[[str], Source] = source
) -> Iterator[tuple[str, Tensor]]:
    """The official tensors that our parameters make up, one at a time.

    Args:
        names: of all our parameters.
        read: gives one of them.
        translate: `official.source`, or that of Janus.
    """
    places = {name: translate(name) for name in names}
    fused: dict[str, list[str]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].third or 0):
        if place.third is not None:
            fused.setdefault(place.names[0], []).append(name)
    for official, parts in fused.items():
        yield official, torch.cat([read(name) for name in parts])
    for name, place in places.items():
        if place.third is not None:
            continue
        value = read(name)
        if len(place.names) == 2:  # the pool head: one third is the query, two are key and value
            query = value.shape[0] // 3
            yield place.names[0], value[:query].contiguous()
            yield place.names[1], value[query:].contiguous()
        else:
            yield place.names[0], (value[None] if place.names[0].endswith("pos_embed") else value).contiguous()


def official_config(config: JanusFlowConfig, dtype: str) -> dict[str, Any]:
    """The released form of `config.json`; a tower that has no released name is spelled out as the golden ones are."""
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
    name, spelled = _tower(config)
    if config.latent_downscale != 8:
        spelled = {**spelled, "small_latent_downscale": config.latent_downscale}
    tower = {"image_size": vision.image_size, "model_name": name, "select_feature": "same", "select_layer": -1}
    blocks = {
        "vision_und_enc_config": ("vision_und_enc", tower),
        "vision_gen_enc_config": ("vision_gen_enc", dict(sorted(encoder.items()))),
        "vision_gen_dec_config": ("vision_gen_dec", dict(sorted(decoder.items()))),
    }
    llm_fields = {field: getattr(llm, field) for field in LLM_FIELDS}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "language_config": {"model_type": "llama", **llm_fields, "torch_dtype": dtype, **llm_extras(llm)},
        **{
            block: {"cls": CLASSES[block], "model_type": kind, "params": params}
            for block, (kind, params) in blocks.items()
        },
        **spelled,
    }


def _tower(config: JanusFlowConfig) -> tuple[str, dict[str, Any]]:
    """The released name of the tower; or the nearest one's, and its sizes spelled out."""
    vision = config.vision_config
    sizes = (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size)
    for name, (*known, ratio) in TOWERS.items():
        fits = sizes == tuple(known) and vision.intermediate_size == int(vision.hidden_size * ratio)
        if fits and name.endswith(f"_{vision.image_size}"):
            return name, {}
    ratio = vision.intermediate_size / vision.hidden_size
    spelled = {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "patch_size": vision.patch_size,
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
    }
    return "siglip_large_patch16_384", {"small_vision_tower": spelled}


def write_processor(processor: JanusFlowProcessor, folder: Path) -> None:
    """The processor's files with the fields of released ones, the tokenizer's class one of older transformers."""
    text, image = processor.text, processor.image
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
    for name, fields in (("processor_config.json", text_fields), ("preprocessor_config.json", image_fields)):
        (folder / name).write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    special = dict(processor.tokenizer.special_tokens_map)
    told = {**read_json(folder / "tokenizer_config.json"), **special, "tokenizer_class": "LlamaTokenizerFast"}
    for name, values in (("special_tokens_map.json", special), ("tokenizer_config.json", told)):
        (folder / name).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
