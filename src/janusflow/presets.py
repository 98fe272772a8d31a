"""Presets of generation: named sets of settings that trade quality for work. They are defined only here.

    preset_of("fast", solver="euler")  # the settings of "fast", but with Euler steps

`benchmarks/pareto.py` measures what each costs in quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from janusflow.arguments import quoted, suggestion

DECODERS = ("vae", "small")


@dataclass(frozen=True)
class Preset:
    """Settings of a preset; each is also an argument of `generate`.

    Attributes:
        num_inference_steps: steps from noise to data.
        solver: a key of `janusflow.flow.METHODS`.
        shift: shift of the time grid; above 1 puts more steps near the noise.
        guidance_interval: range of t in which guidance acts; elsewhere a step costs half.
        decoder: "vae", or "small" for the model's small decoder.
    """

    num_inference_steps: int = 30
    solver: str = "euler"
    shift: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    decoder: str = "vae"

    def sampling(self) -> dict[str, Any]:
        """Return all settings but the decoder: those that the ODE depends on."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "decoder"}

    def recorded(self) -> dict[str, str]:
        """Return the decoder as recorded in a picture; empty for the VAE."""
        return {} if self.decoder == "vae" else {"decoder": self.decoder}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "exact": Preset(),
        "balanced": Preset(num_inference_steps=10, solver="ab2"),
        "fast": Preset(num_inference_steps=6, solver="ab2", guidance_interval=(0.0, 0.5)),
    }
)
"""Name to settings. "exact" is the default of `generate`."""


def preset_of(name: str | None, **given: Any) -> Preset:
    """Return the settings of a preset; given settings that are not None take precedence.

    Args:
        name: a key of `PRESETS`; None is "exact".
        **given: attributes of `Preset`.

    Raises:
        ValueError: for an unknown name or decoder.

    Example:
        >>> preset_of("fast", num_inference_steps=8).num_inference_steps
        8
    """
    if name is None:
        name = "exact"
    if not isinstance(name, str) or name not in PRESETS:
        near = suggestion(name, PRESETS) if isinstance(name, str) else ""
        raise ValueError(f"preset is {quoted(name)}{near or '; choose from ' + ', '.join(PRESETS)}")
    chosen = replace(PRESETS[name], **{key: value for key, value in given.items() if value is not None})
    if chosen.decoder not in DECODERS:
        raise ValueError(f"decoder is {quoted(chosen.decoder)}; choose from {', '.join(DECODERS)}")
    return chosen


KNOBS = tuple(field.name for field in fields(Preset))
"""Names of the settings in a preset."""
