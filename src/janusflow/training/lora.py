"""Low-rank adapters on the LLM (and f_enc) through PEFT; the other trained parts are trained in full."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from janusflow.building import BUILDING
from janusflow.extras import require
from janusflow.families import Family, family_of
from janusflow.training.config import LoraConfig

PROJECTIONS = r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
TOWER_PROJECTIONS = r"(self_attn\.(q_proj|k_proj|v_proj|out_proj|projection_layer)|mlp\.(fc1|fc2))"
ADAPTED = ("llm", "tower")  # parts that are trained through adapters


def whole_modules(family: Family, part: str) -> list[str]:
    """Return the modules of a part that is trained in full.

    A parameter outside them, such as begin-of-understanding, stays as it is.
    """
    prefixes = () if part in ADAPTED else family.trainable[part]
    return [prefix[:-1] for prefix in prefixes if prefix.endswith(".") and family.never_run not in prefix]


def add_adapters(network: Any, config: LoraConfig, parts: Sequence[str]) -> Any:
    """Add adapters to the network in place; only they and the parts trained in full are trainable afterwards.

    Args:
        config: settings of the adapters, with a rank above 0.
        parts: names from `Family.trainable`; "llm" gets adapters, "tower" too if `config.tower`; the others are trained
            in full.

    Returns:
        PEFT's model around the network, which saves, merges and unmerges the adapters.
    """
    require("lora.rank", "peft")
    import peft

    family = family_of(network.config)
    places = [rf"{re.escape(family.blocks)}\..*\.{PROJECTIONS}"]
    if config.tower:
        places.append(rf"{re.escape(family.tower('encoder.'))}.*\.{TOWER_PROJECTIONS}")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="|".join(places),
        modules_to_save=[name for part in parts for name in whole_modules(family, part)] or None,
    )
    with BUILDING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)  # PEFT still asks for it
        return peft.get_peft_model(network, settings)
