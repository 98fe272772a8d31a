"""Types of the keyword arguments of `generate`, and the callback that watches, steers or cancels it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsIndex, TypeAlias, TypedDict

import torch
from torch import Tensor

from janusflow.arguments import LARGEST, number_from, quoted, true_or_false, unknown_argument
from janusflow.processing.images import ImageSource

OutputType = Literal["pil", "np", "latent"]
OUTPUT_TYPES = ("pil", "np", "latent")

StepEnd: TypeAlias = Callable[[Any, int, float, dict[str, Tensor]], "Mapping[str, Any] | None"]
"""`callback_on_step_end`: called as callback(model, step, t, tensors) after each step of each batch.

`step` counts from 0 and `t` in (0, 1] is the time reached. JanusFlow's tensors are {"latents": x}, and Janus' are
{"codes": the codes so far}. A Janus callback returns None; a change is an error. A JanusFlow callback may return a
mapping with

- `latents`: replace x;
- `guidance_scale`: applies from the next step of this batch on;
- `stop`: True ends the generation, and the pictures are returned as they are.

A picture that a callback changed is marked as such, and `settings_of` rejects it: its settings do not recreate it.

An exception in the callback ends the generation and is raised by `generate`; the model can be used again.

Example:
    >>> import threading
    >>> from janusflow import JanusFlow
    >>> cancelled = threading.Event()  # set by a button, a signal, another thread
    >>> def check(model, step, t, tensors):
    ...     if cancelled.is_set():
    ...         raise InterruptedError("cancelled")
    >>> model = JanusFlow.from_pretrained("tiny")
    >>> pictures = model.generate("a red circle", num_inference_steps=2, callback_on_step_end=check)
"""


@dataclass(frozen=True)
class StepChange:
    """The change that a callback requests after a step; see `StepEnd`."""

    latents: Tensor | None = None
    guidance_scale: float | None = None
    stop: bool = False

    def changes(self, latents: Tensor, guidance_scale: float, *, last: bool) -> bool:
        """Whether the picture differs from the one without the callback.

        Args:
            latents: x before the callback was called.
            guidance_scale: guidance scale of the previous step.
            last: whether this was the last step, after which neither guidance nor stopping has an effect.
        """
        if self.latents is not None and not torch.equal(self.latents, latents):
            return True
        return not last and (self.stop or self.guidance_scale not in (None, guidance_scale))

    @classmethod
    def read(cls, returned: Mapping[str, Any] | None, latents: Tensor | None = None) -> StepChange:
        """Read the changes from what a callback returned.

        Args:
            returned: return value of the callback.
            latents: the x that it was given; new latents must have the same shape.

        Raises:
            ValueError: for anything but None or a mapping, an unknown key, or a value that is not allowed.
        """
        known = list(cls.__dataclass_fields__)
        if returned is not None and not isinstance(returned, Mapping):
            raise ValueError(
                f"callback_on_step_end returned {quoted(returned)}; expected None or a mapping with stop, "
                "guidance_scale, latents"
            )
        odd = [str(key) for key in returned or {} if key not in known]
        if odd:
            raise unknown_argument(odd, known, of="the mapping that callback_on_step_end returned")
        change = cls(**(returned or {}))
        if change.guidance_scale is not None:
            scale = number_from("guidance_scale of callback_on_step_end", change.guidance_scale, 1, LARGEST)
            change = replace(change, guidance_scale=scale)
        true_or_false("stop of callback_on_step_end", change.stop)
        if change.latents is not None and latents is not None:
            given = check_latents(change.latents, tuple(latents.shape), "latents of callback_on_step_end")
            change = replace(change, latents=given.to(latents.device))
        return change

    @classmethod
    def refuse(cls, returned: Mapping[str, Any] | None) -> None:
        """Check the return value of a Janus callback, which cannot change the generation.

        Raises:
            ValueError: for a change.
        """
        change = cls.read(returned)
        asked = [
            name
            for name in cls.__dataclass_fields__
            if getattr(change, name) is not None and getattr(change, name) is not False
        ]
        if asked:
            raise ValueError(
                f"callback_on_step_end returned {', '.join(asked)}, which a Janus model does not support; return None, "
                "or raise an exception to cancel"
            )


def check_latents(latents: Tensor, shape: tuple[int, ...], name: str = "latents") -> Tensor:
    """Check given latents and return them in float32.

    Args:
        latents: a tensor of real numbers.
        shape: (N, C, H, W) of the request.
        name: name in error messages.

    Raises:
        ValueError: for another type or shape, or values that are not finite.
    """
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        kind = str(latents.dtype) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"{name} are {kind}; expected a tensor of floating-point numbers")
    if tuple(latents.shape) != shape:
        raise ValueError(f"{name} have shape {tuple(latents.shape)}; this request needs {shape}")
    if not torch.isfinite(latents).all():
        raise ValueError(f"{name} hold values that are not finite")
    return latents.float()


class SharedSettings(TypedDict, total=False):
    """Arguments of every model's `generate`, besides prompts and `output_type`."""

    num_images_per_prompt: SupportsIndex
    guidance_scale: float
    seed: SupportsIndex | Sequence[SupportsIndex] | None
    batch_size: SupportsIndex
    decode_batch_size: SupportsIndex | None
    callback_on_step_end: StepEnd | None
    progress: bool
    plan: bool | str
    best_of: SupportsIndex
    redraw: SupportsIndex


class FlowSettings(SharedSettings, total=False):
    """Arguments of `JanusFlow.generate`."""

    preset: str | None
    num_inference_steps: SupportsIndex | None
    guidance_interval: tuple[float, float] | None
    solver: str | None
    shift: float | None
    height: SupportsIndex | None
    width: SupportsIndex | None
    generator: torch.Generator | Sequence[torch.Generator] | None
    latents: Tensor | None
    image: ImageSource | Sequence[ImageSource] | None
    mask: ImageSource | Sequence[ImageSource] | None
    strength: float | None
    paste_original: bool
    decoder: str | None


class TokenSettings(SharedSettings, total=False):
    """Arguments of `Janus.generate`."""

    do_sample: bool
    temperature: float
    top_k: SupportsIndex
    top_p: float
    image: ImageSource | Sequence[ImageSource] | None
    image_guidance_scale: float | None
