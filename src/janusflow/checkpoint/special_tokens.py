"""The processor of a checkpoint, and its special tokens in the network: released `config.json` files leave them out."""

from __future__ import annotations

from transformers import GenerationConfig, JanusConfig

from janusflow.checkpoint.load import Checkpoint, Config
from janusflow.processing.processor import JanusFlowProcessor

JANUS_GUIDANCE = 5.0  # of the official script


def open_processor(checkpoint: Checkpoint, *, sft_format: str | None = None) -> JanusFlowProcessor:
    """The processor in a checkpoint's folder, which must fit the network.

    Args:
        checkpoint: from `open_checkpoint`.
        sft_format: another chat template than the folder's.

    Raises:
        ValueError: if its files are missing, damaged or for another network; one sentence that names the file.
    """
    folder, config = checkpoint.folder, checkpoint.config
    processor = JanusFlowProcessor.from_pretrained(
        folder, num_image_tokens=checkpoint.image_tokens, sft_format=sft_format
    )
    if (side := processor.image.image_size) != (seen := config.vision_config.image_size):
        raise ValueError(f"the image processor in {folder} makes pictures of {side} pixels; the network takes {seen}")
    ids = {"image_token_id": processor.image_id}
    if not isinstance(config, JanusConfig):
        ids |= {"begin_image_token_id": processor.image_start_id, "end_image_token_id": processor.image_end_id}
    for name, index in ids.items():
        if getattr(config, name) != index:
            raise ValueError(
                f"{folder / 'config.json'} is damaged: {name} is {getattr(config, name)}, and {index} in tokenizer.json"
            )
    if (size := len(processor.tokenizer)) > (vocabulary := config.text_config.vocab_size):
        raise ValueError(f"{folder / 'tokenizer.json'} has {size} tokens; the network knows {vocabulary}")
    return processor


def set_special_tokens(config: Config, processor: JanusFlowProcessor) -> GenerationConfig:
    """Puts the ids into a configuration's LLM, and gives what transformers' own `generate` needs to know of them.

    Args:
        config: of a network; changed in place.
        processor: of the same checkpoint.

    Returns:
        With the ids, and for a Janus what its `generate(generation_mode="image")` asks for.
    """
    tokenizer = processor.tokenizer
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    for name in ("bos_token_id", "eos_token_id"):  # with a pad token, Llama would not train that one's embedding
        setattr(config.text_config, name, ids[name])
    if not isinstance(config, JanusConfig):
        return GenerationConfig(**ids)
    drawing = {"boi_token_id": processor.image_start_id}
    return GenerationConfig(**ids, guidance_scale=JANUS_GUIDANCE, generation_kwargs=drawing)
