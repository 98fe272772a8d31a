"""The layout of Janus in transformers (`deepseek-community/...`); see also `processing/transformers_layout.py`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import JanusConfig

from janusflow.families.layout import own_layout
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.processing.transformers_layout import write_transformers_processor


def read_config(raw: dict[str, Any], ids: dict[str, int], names: Collection[str] | None) -> JanusConfig:
    """Read the configuration; a head that is stored is not tied, whatever the default is."""
    config: JanusConfig = JanusConfig.from_dict(raw)
    if names is not None:
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = "lm_head.weight" not in names
    return config


def write(config: JanusConfig, processor: JanusFlowProcessor, folder: Path, dtype: str) -> None:
    """Write everything except the weights."""
    write_transformers_processor(processor, folder)
    config.dtype = dtype
    config.save_pretrained(folder)


LAYOUT = replace(own_layout(JanusConfig, "transformers"), read_config=read_config, write=write)
