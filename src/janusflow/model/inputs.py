"""Checks which arguments `JanusFlowForConditionalGeneration.forward` takes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.utils import TransformersKwargs

KNOWN_KWARGS = frozenset(TransformersKwargs.__annotations__) | {"documents"}  # the latter is for `PACKED` attention


def check_inputs(
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    pixel_values: Tensor | None,
    latents: Tensor | None,
    t: Tensor | None,
    options: Mapping[str, Any],
) -> None:
    """Check which arguments of `forward` are given.

    Raises:
        ValueError: for arguments that do not go together, or an unknown one.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    if input_ids is None and (pixel_values is not None or latents is not None):
        raise ValueError("pixel_values and latents need input_ids, whose image tokens they fill, not inputs_embeds")
    if (latents is None) != (t is None):
        raise ValueError("give latents and their times t together")
    unknown = sorted(name for name in options.keys() - KNOWN_KWARGS if options[name] is not None)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: unknown to forward; leave it out, or correct its name")
