"""Open the processor of a checkpoint, and set the special tokens that released `config.json` files lack."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from janusflow.checkpoint.card import descendant_of
from janusflow.checkpoint.load import Checkpoint
from janusflow.families import family_of
from janusflow.processing.processor import JanusFlowProcessor


def open_processor(checkpoint: Checkpoint, *, sft_format: str | None = None) -> JanusFlowProcessor:
    """Open the processor in a checkpoint's folder, and check that it fits the network.

    Args:
        sft_format: chat template to use in place of the folder's, or of the one in a known descendant's scripts.

    Raises:
        ValueError: if its files are missing, damaged or for another network; names the file.
    """
    folder, config = checkpoint.folder, checkpoint.config
    if sft_format is None and (descendant := descendant_of(checkpoint)) is not None:
        sft_format = descendant.sft_format
    family, tokens = checkpoint.family, checkpoint.family.seen_tokens(config)
    processor = JanusFlowProcessor.from_pretrained(folder, num_image_tokens=tokens, sft_format=sft_format)
    if (side := processor.image.image_size) != (seen := config.vision_config.image_size):
        raise ValueError(f"the image processor in {folder} makes pictures of {side} pixels; the network expects {seen}")
    for name, attribute in family.token_ids.items():
        if getattr(config, name) != (index := getattr(processor, attribute)):
            raise ValueError(
                f"{folder / 'config.json'} is damaged: {name} is {getattr(config, name)}, and {index} in tokenizer.json"
            )
    if (size := len(processor.tokenizer)) > (vocabulary := config.text_config.vocab_size):
        raise ValueError(f"{folder / 'tokenizer.json'} has {size} tokens; the network has {vocabulary}")
    return processor


def set_special_tokens(config: Any, processor: JanusFlowProcessor) -> GenerationConfig:
    """Set the ids in a configuration's LLM, and return what transformers' own `generate` needs.

    Args:
        config: configuration of a network; changed in place.

    Returns:
        The ids and the family's own settings.
    """
    tokenizer = processor.tokenizer
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    for name in ("bos_token_id", "eos_token_id"):  # with a pad token, Llama would not train its embedding
        setattr(config.text_config, name, ids[name])
    return GenerationConfig(**ids, **family_of(config).text_generation(processor))
