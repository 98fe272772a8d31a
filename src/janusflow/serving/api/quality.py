"""Map OpenAI's `quality` to the presets of `generate`, which are in `janusflow.presets`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from janusflow.serving.api.image_body import ImageBody
from janusflow.serving.errors import invalid

Said: TypeAlias = Literal["auto", "low", "medium", "high"]
QUALITIES: Mapping[str, str] = MappingProxyType(
    {"high": "exact", "hd": "exact", "medium": "balanced", "standard": "balanced", "low": "fast"}
)


def with_preset(body: ImageBody, supported: bool) -> dict[str, Any]:
    """Return the settings that a request names, including its preset or the preset that its quality stands for.

    Args:
        body: body of the request.
        supported: whether the model has presets.

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
    return {**body.sampling(), "preset": name}


def said_quality(body: ImageBody) -> Said:
    """Return the quality for the response, in the words of OpenAI's responses."""
    found: dict[str, Said] = {"exact": "high", "balanced": "medium", "fast": "low"}
    return found.get(body.preset or QUALITIES.get(body.quality, ""), "auto")
