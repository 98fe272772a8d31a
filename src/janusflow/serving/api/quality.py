"""OpenAI's `quality` and our `preset`: names for settings of `generate`. This table is the only place of both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from janusflow.serving.api.image_body import ImageBody
from janusflow.serving.errors import invalid

Said: TypeAlias = Literal["auto", "low", "medium", "high"]
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "exact": {},  # the defaults of `generate`
        "balanced": {"num_inference_steps": 10, "solver": "ab2"},
        "fast": {"num_inference_steps": 6, "solver": "ab2", "guidance_interval": (0.0, 0.5)},
    }
)
QUALITIES: Mapping[str, str] = MappingProxyType(
    {"high": "exact", "hd": "exact", "medium": "balanced", "standard": "balanced", "low": "fast"}
)


def with_preset(body: ImageBody, supported: bool) -> dict[str, Any]:
    """The settings that a request names, and for the others those of its preset or quality.

    Args:
        body: of the request.
        supported: whether the model takes the settings that presets consist of.

    Raises:
        ApiError: if both are given, or the model has no presets.
    """
    if body.preset is not None and body.quality != "auto":
        raise invalid(f"quality is {body.quality!r} and preset {body.preset!r}; give one of them", "quality")
    name = body.preset or QUALITIES.get(body.quality)
    if name is None:
        return body.sampling()
    if not supported:
        param = "quality" if body.preset is None else "preset"
        raise invalid(f"{param} is not a setting of this model; leave it out", param, "unknown_parameter")
    return {**PRESETS[name], **body.sampling()}


def said_quality(body: ImageBody) -> Said:
    """What the response says of it, in the words that OpenAI's responses have."""
    found: dict[str, Said] = {"exact": "high", "balanced": "medium", "fast": "low"}
    return found.get(body.preset or QUALITIES.get(body.quality, ""), "auto")
