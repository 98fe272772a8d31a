"""The tokenizer's begin, end and pad tokens, told to the network: released `config.json` files leave them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GenerationConfig, JanusConfig

if TYPE_CHECKING:
    from janusflow.checkpoint.load import Config
    from janusflow.processor import JanusFlowProcessor

JANUS_GUIDANCE = 5.0  # of the official script


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
