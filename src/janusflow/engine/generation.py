"""A request for pictures: checks its settings, seeds and noise, and converts its result to pictures.

Shapes: N pictures, (C, H, W) a latent, (height, width) = f (H, W) pixels.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.arguments import LARGEST, MAX_STEPS, SMALLEST, counted, given, number_from, quoted, whole_number
from janusflow.config import JanusFlowConfig
from janusflow.device import CPU
from janusflow.engine.inpainting import Kept
from janusflow.engine.settings import OUTPUT_TYPES, OutputType, check_latents
from janusflow.engine.size import Size
from janusflow.flow import METHODS, check_guidance, shifted_times, standard_normal

IMAGE_STRENGTH, MASK_STRENGTH = 0.6, 1.0  # defaults of `strength` with only a picture, and otherwise
LARGEST_SEED = 2**64 - 1  # of torch's generators


@dataclass(frozen=True)
class Sampling:
    """How the ODE is integrated.

    Attributes:
        num_inference_steps: steps from noise to data, 1 to `MAX_STEPS`.
        guidance_scale: weight w of classifier-free guidance; 1 runs no unconditional row.
        guidance_interval: range of t in which guidance acts.
        solver: a key of `janusflow.flow.METHODS`.
        shift: shift of the time grid; 1 is uniform, a larger value puts more steps near the noise.
        strength: fraction of the path that is integrated: it starts at t = 1 - strength.

    Raises:
        ValueError: for a value that is not allowed.
    """

    num_inference_steps: int = 30
    guidance_scale: float = 2.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: str = "euler"
    shift: float = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "num_inference_steps", whole_number("num_inference_steps", self.num_inference_steps, most=MAX_STEPS)
        )
        for name, bounds in (
            ("guidance_scale", (1, LARGEST)),
            ("shift", (SMALLEST, LARGEST)),
            ("strength", (SMALLEST, 1)),
        ):
            object.__setattr__(self, name, number_from(name, getattr(self, name), *bounds))
        ends: Any = self.guidance_interval
        if isinstance(ends, str) or not hasattr(ends, "__len__") or len(ends) != 2:
            raise ValueError(f"guidance_interval is {quoted(ends)}; expected two numbers in [0, 1], such as (0.0, 0.6)")
        interval = tuple(number_from("guidance_interval", end) for end in ends)
        object.__setattr__(self, "guidance_interval", interval)
        check_guidance(self.guidance_scale, self.guidance_interval)
        if self.solver not in METHODS:
            raise ValueError(f"solver is {quoted(self.solver)}; choose from {', '.join(METHODS)}")
        self.times()

    def times(self) -> list[float]:
        """Return the time grid. A shorter path has proportionally fewer steps."""
        steps = max(1, round(self.num_inference_steps * self.strength))
        return shifted_times(steps, self.shift, start=1 - self.strength)


def check_request(prompts: str | Sequence[str], output_type: str) -> list[str]:
    """Check a request and return its prompts as a list.

    Args:
        prompts: one or several.
        output_type: one of `OUTPUT_TYPES`.

    Raises:
        ValueError: for no prompt, or a value that is not allowed.
    """
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {quoted(output_type)}; expected {', '.join(OUTPUT_TYPES)}")
    if prompts is None:
        raise ValueError("prompt is None; a prompt is some text")
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise ValueError(f"prompts is {quoted(prompts)}; expected some text, or a list of texts")
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if not listed:
        raise ValueError("no prompt was given; a prompt is some text")
    return listed


def as_pictures(pixels: Tensor, output_type: OutputType, kept: Kept | None = None) -> Any:
    """Convert pixels (N, 3, height, width) in [-1, 1] to pictures ("pil") or an array (N, height, width, 3) in [0, 1].

    Args:
        pixels: see above.
        output_type: see above.
        kept: pixels to paste over them.
    """
    array = (pixels.permute(0, 2, 3, 1).cpu().numpy() + 1) / 2
    if output_type != "np":
        array = (array * 255).astype(np.uint8)  # truncated, not rounded, as in the official code
    if kept is not None:
        array = kept.paste(array)
    return array if output_type == "np" else [Image.fromarray(picture) for picture in array]


def choose_strength(strength: float | None, *, image: bool, mask: bool) -> float:
    """Return `strength` as given, or its default with or without a picture and a mask.

    Raises:
        ValueError: if a mask or a strength is given without a picture.
    """
    if not image and (mask or strength is not None):
        raise ValueError("mask and strength need an image to start from")
    if strength is not None:
        return strength
    return IMAGE_STRENGTH if image and not mask else MASK_STRENGTH


def choose_seeds(seed: SupportsIndex | Sequence[SupportsIndex] | None, prompts: int, per_prompt: int) -> list[int]:
    """Return one seed per picture, with pictures of one prompt adjacent.

    Args:
        seed: one number, from which picture j of every prompt gets seed + j; or one per picture (a list or an array);
            or None for a random one.
        prompts: number of prompts.
        per_prompt: number of pictures per prompt.

    Raises:
        ValueError: for a wrong number of seeds, or one outside 0 .. 2^64 - 1.
    """
    if seed is None:
        seed = secrets.randbelow(2**32)
    listed: Any = seed
    if hasattr(listed, "__len__") and getattr(listed, "ndim", 1) > 0:
        seeds = [check_seed(value) for value in listed]
        if len(seeds) != prompts * per_prompt:
            raise ValueError(f"{given(len(seeds), 'seed')} for {counted(prompts * per_prompt, 'picture')}")
        return seeds
    first = check_seed(seed)
    if first + per_prompt - 1 > LARGEST_SEED:
        raise ValueError(
            f"seed is {first}, and picture j of a prompt gets seed + j; for {per_prompt} pictures of each the largest "
            f"is {LARGEST_SEED - per_prompt + 1}"
        )
    return [first + picture for _ in range(prompts) for picture in range(per_prompt)]


def check_seed(seed: object) -> int:
    """Return a seed as torch's generators take it.

    Raises:
        ValueError: if it is not a whole number from 0 to 2^64 - 1.
    """
    return whole_number("seed", seed, least=0, most=LARGEST_SEED)


def seeds_of(
    size: Size,
    seed: SupportsIndex | Sequence[SupportsIndex] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    latents: Tensor | None,
) -> tuple[list[int | None], SupportsIndex | Sequence[SupportsIndex] | None]:
    """Return the seed that gives each picture's noise, None where none does, and the seeds to use, random by default.

    An unused generator on the CPU gives the noise of its seed.
    """
    if generator is None and latents is None:
        seeds = choose_seeds(seed, size.prompts, size.per_prompt)
        return [*seeds], seeds
    if generator is None:
        return [None] * size.pictures, seed
    generators = _for_each_picture(generator, size)
    found: list[int | None] = []
    for number, one in enumerate(generators):
        new = one.device.type == "cpu" and all(one is not other for other in generators[:number])
        first = one.initial_seed()
        unused = new and torch.equal(one.get_state(), torch.Generator().manual_seed(first).get_state())
        found.append(first if unused and 0 <= first <= LARGEST_SEED else None)
    return found, seed


def choose_noise(
    config: JanusFlowConfig,
    size: Size,
    seed: SupportsIndex | Sequence[SupportsIndex] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    latents: Tensor | None,
) -> Tensor:
    """Return x_0 ~ N(0, I), (N, C, H, W) float32.

    It is as given, or each picture's comes from its own seed or generator, so that no picture depends on another. One
    generator for all pictures generates their noise in order.

    Raises:
        ValueError: if more than one source is given, or one does not fit the request.
    """
    named = [name for name, v in (("seed", seed), ("generator", generator), ("latents", latents)) if v is not None]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} were given; each of them fixes the noise, so give one")
    cell = config.latent_downscale
    shape = (config.latent_channels, size.height // cell, size.width // cell)
    if latents is not None:
        return check_latents(latents, (size.pictures, *shape))
    if generator is None:
        seeds = choose_seeds(seed, size.prompts, size.per_prompt)
        generators = [torch.Generator(CPU).manual_seed(value) for value in seeds]
    else:
        generators = _for_each_picture(generator, size)
    return torch.stack([standard_normal(shape, one) for one in generators])


def _for_each_picture(generator: object, size: Size) -> list[torch.Generator]:
    """Return one generator per picture, from one for all pictures or one for each.

    Raises:
        ValueError: for another type, or a wrong number.
    """
    if isinstance(generator, torch.Generator):
        return [generator] * size.pictures
    generators: list[Any] = list(generator) if isinstance(generator, Iterable) else [generator]
    if odd := [one for one in generators if not isinstance(one, torch.Generator)]:
        raise ValueError(f"generator holds {quoted(odd[0])}; expected a torch.Generator, or one for each picture")
    if len(generators) != size.pictures:
        raise ValueError(f"{given(len(generators), 'generator')} for {counted(size.pictures, 'picture')}")
    return generators
