"""Generate a picture in bounded pieces of work: its prompt, then one step after another, then its pixels.

Each piece yields its events, or work that the runner batches with that of other pictures: an engine's job that needs a
velocity, or latents to decode.

Shapes: (C, H, W) a latent, (height, width) = f (H, W) pixels, L codes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor

from janusflow.device import CPU
from janusflow.engine.generation import Sampling, as_pictures, choose_noise
from janusflow.engine.inpainting import Kept, known_picture
from janusflow.engine.jobs import Job
from janusflow.engine.settings import StepChange
from janusflow.engine.size import Size
from janusflow.engine.token_generation import TokenSampling, code_by_code
from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.provenance import sign
from janusflow.serving.jobs import Event, PictureDone, PictureRequest, Preview

_identities = WeakKeyDictionary[Pipeline, dict[str, Any]]()
PIXELS_TOGETHER = 2**17  # decoded at once; pictures of 384 x 384 pixels are decoded one by one
BACKDROP = (127, 127, 127)  # grey for the part of a preview that is not generated yet


@dataclass(eq=False)
class DecodeJob:
    """Latent to decode. Small pictures of the same size are decoded together, which takes half the time.

    Attributes:
        model: pipeline whose VAE decodes.
        latents: (1, C, H, W).
        decoder: see `model.decode`.
        kept: pixels to keep from the request's own picture.
        preview: number of this preview; None for the result. The picture does not wait for its previews.
        pixels: (1, 3, height, width) in [-1, 1], once decoded.
    """

    model: Any
    latents: Tensor
    decoder: str
    kept: Kept | None = None
    preview: int | None = None
    pixels: Tensor = field(default_factory=lambda: torch.empty(0))

    def picture(self) -> Image.Image:
        """Return the picture. Decode it on its own if it could not be decoded together with others."""
        if not self.pixels.numel():
            decode_together([self])
        return _picture(self.pixels, self.kept)


def decode_together(asked: Sequence[DecodeJob]) -> None:
    """Decode latents, at most `PIXELS_TOGETHER` pixels at once; a larger picture is decoded on its own.

    Args:
        asked: jobs with the same model, decoder and size.
    """
    first = asked[0]
    cell = first.model.network.config.latent_downscale
    most = max(1, PIXELS_TOGETHER // (first.latents[0, 0].numel() * cell**2))
    for start in range(0, len(asked), most):
        part = asked[start : start + most]
        pixels = first.model.decode(torch.cat([one.latents for one in part]), first.decoder)
        for one, own in zip(part, pixels.split(1), strict=True):
            one.pixels = own


def flow_picture(request: PictureRequest) -> Generator[list[Event] | Job | DecodeJob]:
    """Generate a JanusFlow picture, one velocity evaluation at a time. The result equals that of `generate`.

    Args:
        request: request for a `JanusFlow`.
    """
    model: Any = request.model
    settings, device = request.settings, model.device
    sampling = _read(Sampling, settings)
    size = Size(1, 1, settings["height"], settings["width"])
    known, kept = None, None
    if request.image is not None:
        known, kept = known_picture(model.codec, size, request.image, request.mask, device)
        kept = kept if settings.get("paste_original") else None
        yield []
    ids, visible = model.processor.encode_prompts([request.prompt])
    prefix = model.network.encode_prompts(ids.to(device), visible.to(device))
    noise = choose_noise(model.network.config, size, request.seed, None, None).to(device)
    yield []

    previews, due = preview_steps(len(sampling.times()) - 1, request.previews), list[tuple[int, float, Tensor]]()

    def after_step(step: int, t: float, x: Tensor) -> StepChange:
        if step in previews:
            due.append((previews.index(step), t, x))
        return StepChange()

    job = Job(prefix, noise, sampling, known=known, callback=after_step)
    while job.result is None:
        yield job
        for index, t, x in due:
            yield DecodeJob(model, x + (1 - t) * job.velocity, "preview", kept, index)
        due.clear()
    result = DecodeJob(model, job.result, settings.get("decoder", "vae"), kept)
    yield result
    yield [PictureDone(_signed(request, result.picture()))]


def code_picture(request: PictureRequest) -> Generator[list[Event]]:
    """Generate a Janus picture, one code at a time. The result equals that of `generate`.

    Args:
        request: request for a `Janus`.
    """
    model: Any = request.model
    network, device = model.network, model.device
    sampling = _read(TokenSampling, request.settings)
    images = None if request.image is None else [request.image]
    read = model.read([request.prompt], images, guided=sampling.guidance_scale > 1)
    length = network.image_tokens
    generator = torch.Generator(CPU).manual_seed(request.seed)
    uniform = torch.rand(length, generator=generator, device=CPU, dtype=torch.float32)[None].to(device)
    owner = torch.zeros(1, dtype=torch.int64, device=device)
    yield []
    previews, codes = preview_steps(length, request.previews), owner
    for step, codes in enumerate(code_by_code(network, read, owner, uniform, sampling)):
        if step in previews:
            yield [Preview(previews.index(step), _upper_part(network, codes))]
        else:
            yield []
    yield [PictureDone(_signed(request, _picture(network.decode(codes).clip(-1, 1))))]


def _upper_part(network: Any, codes: Tensor) -> Image.Image:
    """Return the rows of a picture whose codes are chosen, with grey below."""
    length = network.image_tokens
    rest = codes[:, -1:].expand(1, length - codes.shape[1])
    picture = _picture(network.decode(torch.cat([codes, rest], dim=1)).clip(-1, 1))
    side = round(length**0.5)
    top = codes.shape[1] // side * picture.height // side
    picture.paste(BACKDROP, (0, top, picture.width, picture.height))
    return picture


def preview_steps(steps: int, previews: int) -> list[int]:
    """Return the steps after which previews are sent: evenly spread, none after the last one, at most one per step."""
    spread = {steps * (index + 1) // (previews + 1) - 1 for index in range(previews)}
    return sorted(spread - {-1})


def _read(kind: Any, settings: Any) -> Any:
    return kind(**{f.name: settings[f.name] for f in fields(kind) if f.name in settings})


def _picture(pixels: Tensor, kept: Kept | None = None) -> Image.Image:
    picture: Image.Image = as_pictures(pixels, "pil", kept)[0]
    return picture


def identity_of(model: Pipeline) -> dict[str, Any]:
    """Return `model.identity()`, which is read once because the weights of a server do not change."""
    if model not in _identities:
        _identities[model] = model.identity()
    return _identities[model]


def _signed(request: PictureRequest, picture: Image.Image) -> Image.Image:
    """Add to the picture how it was generated, without paths on the server's disk."""
    settings = {name: value for name, value in request.settings.items() if name not in ("image", "mask")}
    model = {**identity_of(request.model), "name": request.name, "vae": None, "adapter": None}
    return sign([picture], [request.prompt], [request.seed], settings, model, request.digests)[0]
