"""From words to latents: checks a request, draws the noise, reads the prompts once and integrates the velocity.

Shapes: N pictures, (C, H, W) a latent, (height, width) = f (H, W) pixels.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.config import JanusFlowConfig
from janusflow.flow import METHODS, Velocity, guide, integrate, interpolate, shifted_times
from janusflow.images import ImageSource, load_image, load_images
from janusflow.model import JanusFlowForConditionalGeneration, PromptPrefix
from janusflow.vae import LatentCodec

SIZE_MULTIPLE = 16  # pixels: one image token of the released checkpoints
IMAGE_STRENGTH, MASK_STRENGTH = 0.6, 1.0  # defaults of `strength` with a picture alone, and with a mask
LARGEST_SEED = 2**63 - 1

OutputType = Literal["pil", "np", "latent"]
OUTPUT_TYPES = ("pil", "np", "latent")
StepCallback = Callable[[int, float, Tensor], "Tensor | None"]


@dataclass(frozen=True)
class Sampling:
    """How the ODE is integrated.

    Attributes:
        num_inference_steps: steps from noise to data.
        guidance_scale: w of classifier-free guidance; 1 runs no unconditional row.
        guidance_interval: range of t in which guidance acts.
        solver: a key of `janusflow.flow.METHODS`.
        shift: of the time grid; 1 is uniform, more puts more steps near the noise.
        strength: how much of the path is walked: it starts at t = 1 - strength.

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
        steps = self.num_inference_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"num_inference_steps is {steps!r}; expected a whole number from 1 upwards")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 1:
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number from 1 (none) upwards")
        if self.solver not in METHODS:
            raise ValueError(f"solver is {self.solver!r}; known are {', '.join(METHODS)}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; expected a number above 0 and at most 1")
        self.times()

    def times(self) -> list[float]:
        """The time grid. A shorter path is walked in proportionally fewer steps."""
        steps = max(1, round(self.num_inference_steps * self.strength))
        return shifted_times(steps, self.shift, start=1 - self.strength)


@dataclass(frozen=True)
class KnownPicture:
    """What image-to-image and inpainting start from.

    Attributes:
        latents: (N, C, H, W), x_1 of the given pictures.
        repaint: (N, 1, H, W) in {0, 1}, 1 where something new is painted; None repaints everything.
    """

    latents: Tensor
    repaint: Tensor | None

    def select(self, rows: Tensor) -> KnownPicture:
        """The given pictures alone."""
        return KnownPicture(self.latents[rows], None if self.repaint is None else self.repaint[rows])


@dataclass(frozen=True)
class Size:
    """How much is painted: `prompts` times `per_prompt` pictures of `height` x `width` pixels."""

    prompts: int
    per_prompt: int
    height: int
    width: int

    @property
    def pictures(self) -> int:
        """In all."""
        return self.prompts * self.per_prompt

    def one_each(self, name: str, values: list[Tensor]) -> Tensor:
        """One value per painted picture, stacked, from one for all, one per prompt, or one per picture.

        Raises:
            ValueError: for another number of values.
        """
        if len(values) == 1:
            values = values * self.pictures
        elif len(values) == self.prompts:
            values = [value for value in values for _ in range(self.per_prompt)]
        if len(values) != self.pictures:
            raise ValueError(
                f"{len(values)} {name}s were given for {self.prompts} prompts of {self.per_prompt} pictures each"
            )
        return torch.stack(values)


def check_request(prompts: str | Sequence[str], output_type: str, **counts: int) -> list[str]:
    """The prompts of a request as a list.

    Args:
        prompts: one or several.
        output_type: one of `OUTPUT_TYPES`.
        **counts: numbers from 1 upwards, by name.

    Raises:
        ValueError: for no prompt, or a value that is not allowed.
    """
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; allowed are {', '.join(OUTPUT_TYPES)}")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number from 1 upwards")
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if not listed:
        raise ValueError("no prompt was given; a prompt is some text")
    return listed


def as_pictures(pixels: Tensor, output_type: OutputType) -> Any:
    """Pixels (N, 3, height, width) in [-1, 1] as pictures ("pil"), or as an array (N, height, width, 3) in [0, 1]."""
    array = (pixels.permute(0, 2, 3, 1).cpu().numpy() + 1) / 2
    if output_type == "np":
        return array
    # Truncated, not rounded, as the official code does it.
    return [Image.fromarray(picture) for picture in (array * 255).astype(np.uint8)]


def check_size(
    config: JanusFlowConfig, height: int | None, width: int | None, latents: Tensor | None
) -> tuple[int, int]:
    """Height and width in pixels: as given, or of the latents, or what the weights were trained at.

    Raises:
        ValueError: if one is no positive multiple of 16.
    """
    if latents is not None and latents.ndim == 4:
        height = latents.shape[2] * config.latent_downscale if height is None else height
        width = latents.shape[3] * config.latent_downscale if width is None else width
    height, width = (config.image_size if value is None else value for value in (height, width))
    multiple = max(SIZE_MULTIPLE, config.latent_downscale * config.latent_patch_size)
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < multiple or value % multiple:
            raise ValueError(f"{name} is {value!r}; expected a positive multiple of {multiple} pixels")
    return height, width


def check_context(config: JanusFlowConfig, prompt_mask: Tensor, image_tokens: int) -> None:
    """Refuses prompts that, with the time and image tokens, do not fit into the LLM's positions.

    Raises:
        ValueError: naming the longest prompt's tokens and what fits.
    """
    longest, room = int(prompt_mask.sum(dim=1).max()), config.text_config.max_position_embeddings
    if longest + 1 + image_tokens > room:
        raise ValueError(
            f"a prompt has {longest} tokens; beside {image_tokens} image tokens the model's context of {room} "
            f"holds at most {max(room - 1 - image_tokens, 0)}"
        )


def choose_seeds(seed: int | Sequence[int] | None, prompts: int, per_prompt: int) -> list[int]:
    """One seed per picture, pictures of one prompt standing together.

    Args:
        seed: one number, from which picture j of every prompt gets seed + j; or one per picture; or None for chance.

    Raises:
        ValueError: for a wrong number of seeds, or one outside 0 .. 2^63 - 1.
    """
    if seed is None:
        seed = secrets.randbelow(2**32)
    if not isinstance(seed, Sequence):
        check_seed(seed)
        seeds = [seed + picture for _ in range(prompts) for picture in range(per_prompt)]
    else:
        seeds = list(seed)
        if len(seeds) != prompts * per_prompt:
            raise ValueError(f"{len(seeds)} seeds were given for {prompts * per_prompt} pictures")
    for value in seeds:
        check_seed(value)
    return seeds


def check_seed(seed: object) -> None:
    """Refuses what torch's generator does not take.

    Raises:
        ValueError: if it is no whole number from 0 to 2^63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 to {LARGEST_SEED}")


def choose_noise(
    config: JanusFlowConfig,
    size: Size,
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    latents: Tensor | None,
) -> Tensor:
    """x_0 ~ N(0, I), (N, C, H, W) float32: as given, or each picture's from its own generator, so that no picture
    depends on another.

    Raises:
        ValueError: if more than one source is given, or one does not fit the request.
    """
    given = [name for name, v in (("seed", seed), ("generator", generator), ("latents", latents)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given; each of them fixes the noise, so give one")
    cell = config.latent_downscale
    shape = (config.latent_channels, size.height // cell, size.width // cell)
    if latents is not None:
        return check_latents(latents, (size.pictures, *shape))
    if generator is None:
        seeds = choose_seeds(seed, size.prompts, size.per_prompt)
        generators = [torch.Generator().manual_seed(value) for value in seeds]
    elif isinstance(generator, torch.Generator):
        generators = [generator] * size.pictures
    else:
        generators = list(generator)
        if len(generators) != size.pictures:
            raise ValueError(f"{len(generators)} generators were given for {size.pictures} pictures")
    return torch.stack([torch.randn(shape, generator=one, device=one.device) for one in generators])


def check_latents(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Given noise in float32.

    Raises:
        ValueError: if its shape is not (N, C, H, W) of the request, or it holds values that are not finite.
    """
    if tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}; this request needs {shape}")
    if not torch.isfinite(latents).all():
        raise ValueError("latents hold values that are not finite")
    return latents.float()


def known_picture(
    codec: LatentCodec,
    size: Size,
    image: ImageSource | Sequence[ImageSource],
    mask: ImageSource | Sequence[ImageSource] | None,
    device: torch.device,
) -> KnownPicture:
    """The pictures (and masks) to start from, encoded, one for each that is painted."""
    pixels = [fit_picture(picture, size.height, size.width) for picture in load_images(image)]
    latents = size.one_each("image", [codec.encode(one[None])[0] for one in pixels]).to(device)
    if mask is None:
        return KnownPicture(latents, None)
    masks = [fit_mask(picture, size.height, size.width, codec.downscale) for picture in load_images(mask)]
    return KnownPicture(latents, size.one_each("mask", masks).to(device))


def fit_picture(source: ImageSource, height: int, width: int) -> Tensor:
    """A picture resized to cover (height, width) and cropped in the middle: (3, height, width) in [-1, 1]."""
    image = load_image(source)
    resized = image.resize((width, height), Image.Resampling.BICUBIC, box=_middle(image, height, width))
    return torch.from_numpy(np.asarray(resized, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def fit_mask(source: ImageSource, height: int, width: int, cell: int) -> Tensor:
    """A mask, bright where to repaint, on the latent grid: (1, H, W) in {0, 1}; a cell with any bright pixel is 1.

    It is cropped as `fit_picture` crops a picture of its size.
    """
    grey = load_image(source).convert("L")
    left, top, right, bottom = _middle(grey, height, width)
    cropped = grey.crop((math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))
    bright = torch.from_numpy(np.asarray(cropped, dtype=np.float32) > 127).float()
    return torch.nn.functional.adaptive_max_pool2d(bright[None], (height // cell, width // cell))


def _middle(image: Image.Image, height: int, width: int) -> tuple[float, float, float, float]:
    """The largest box of the aspect (height, width) in the middle of a picture: left, top, right, bottom."""
    scale = min(image.height / height, image.width / width)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    return max(left, 0), max(top, 0), min(left + width * scale, image.width), min(top + height * scale, image.height)


def sample_latents(
    network: JanusFlowForConditionalGeneration,
    prefix: PromptPrefix,
    noise: Tensor,
    sampling: Sampling,
    *,
    known: KnownPicture | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """x_1 for N pictures.

    Args:
        network: gives the velocity.
        prefix: the N rows' prompts, read once.
        noise: x_0, (N, C, H, W) float32.
        sampling: see `Sampling`.
        known: pictures to start from; the path then starts at x_t = t x_1 + (1 - t) x_0 with t = 1 - strength, and
            where nothing is repainted x is put back on that path after every step.
        callback: called with (step, t, x) after each step.
    """
    times = sampling.times()
    x = noise if known is None else interpolate(noise, known.latents, noise.new_full((len(noise),), times[0]))

    def put_back(x: Tensor, t: float) -> Tensor:
        if known is None or known.repaint is None:
            return x
        path = interpolate(noise, known.latents, noise.new_full((len(noise),), t))
        return torch.where(known.repaint.bool(), x, path)

    def after_step(index: int, t: float, x: Tensor) -> Tensor:
        x = put_back(x, t)
        replaced = callback(index, t, x) if callback else None
        return x if replaced is None else put_back(replaced, t)

    velocity = guided_velocity(network, prefix, sampling)
    return integrate(velocity, x, times, method=sampling.solver, callback=after_step)


def guided_velocity(network: JanusFlowForConditionalGeneration, prefix: PromptPrefix, sampling: Sampling) -> Velocity:
    """v(x, t) for the rows of a prefix; the unconditional rows run in the same batch, and only where needed."""
    both = PromptPrefix.concatenate(prefix, prefix.unconditional()) if sampling.guidance_scale > 1 else prefix
    return guide(
        lambda x, t: network.velocity(x, t, prefix),
        lambda x, t: network.velocity(x, t, both),
        scale=sampling.guidance_scale,
        interval=sampling.guidance_interval,
    )
