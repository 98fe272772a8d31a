"""Low-rank adapters on the LLM (and f_enc), through PEFT; g_enc, g_dec and the aligner train whole next to them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from janusflow.building import BUILDING
from janusflow.extras import require
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.training.config import LoraConfig

PROJECTIONS = r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
TOWER_PROJECTIONS = r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"
WHOLE = {"aligner": ["understanding_encoder.aligner"], "generation": ["generation_encoder", "generation_decoder"]}


def add_adapters(network: JanusFlowForConditionalGeneration, config: LoraConfig, parts: Sequence[str]) -> Any:
    """Puts adapters into the network, in place; they and the parts trained whole are all that learns then.

    Args:
        config: rank above 0.
        parts: of `Family.trainable`; "llm" gets adapters, "tower" too if `config.tower`, the others train whole.

    Returns:
        PEFT's model around the network, which saves, merges and unmerges the adapters.
    """
    require("lora.rank", "peft")
    import peft

    places = [rf"language_model\..*\.{PROJECTIONS}"]
    if config.tower:
        places.append(rf"understanding_encoder\.tower\.encoder\..*\.{TOWER_PROJECTIONS}")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="|".join(places),
        modules_to_save=[name for part in parts for name in WHOLE.get(part, [])] or None,
    )
    with BUILDING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)  # PEFT still asks for it
        return peft.get_peft_model(network, settings)
