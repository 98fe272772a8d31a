"""The bodies of `/v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue

from janusflow.serving.api.body import Job

EXAMPLES: list[JsonValue] = [
    {"model": "tiny", "prompt": "a red circle above a blue square"},
    {"model": "tiny", "prompt": "three stars", "n": 4, "seed": 0, "num_inference_steps": 20, "guidance_scale": 2.0},
    {"model": "tiny", "prompt": "a green cross", "stream": True, "partial_images": 2},
]
FLOW = ("preset", "num_inference_steps", "guidance_scale", "guidance_interval", "solver", "shift", "decoder")
SAMPLING = (*FLOW, "do_sample", "temperature", "top_k", "top_p")
SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def _checked_size(size: str) -> str:
    if size != "auto" and not SIZE.fullmatch(size):
        raise ValueError("expected auto or WIDTHxHEIGHT, such as 384x384")
    return size


class ImageBody(Job):
    """Parameters shared by generation and editing, with OpenAI's names and those of `generate`."""

    model: Annotated[str | None, Field(description="The server's first model by default.")] = None
    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, description="Picture i gets seed + i.")] = 1
    size: Annotated[str, AfterValidator(_checked_size), Field(description="WIDTHxHEIGHT in pixels, or auto.")] = "auto"
    response_format: Annotated[
        Literal["b64_json", "url"], Field(description="url is a data URI: nothing is kept on the server.")
    ] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Quality of jpeg and webp, 0 to 100.")
    ] = None
    background: Literal["auto", "opaque"] = "auto"
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "standard", "hd"],
        Field(description="low is the preset fast, medium and standard balanced, high and hd exact."),
    ] = "auto"
    preset: Annotated[
        Literal["exact", "balanced", "fast"] | None,
        Field(description="Steps, solver and guidance interval, where they are not given."),
    ] = None
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3, description="Previews of a stream.")] = 0
    seed: Annotated[int | None, Field(ge=0, lt=2**64)] = None
    num_inference_steps: Annotated[int | None, Field(ge=1)] = None
    guidance_scale: Annotated[float | None, Field(ge=1)] = None
    guidance_interval: Annotated[list[float] | None, Field(min_length=2, max_length=2)] = None
    solver: Annotated[str | None, Field(description="euler, heun, midpoint, ab2 or unipc.")] = None
    decoder: Annotated[str | None, Field(description="vae or small.")] = None
    shift: Annotated[float | None, Field(gt=0)] = None
    do_sample: Annotated[bool | None, Field(description="Of a Janus model, as the next three.")] = None
    temperature: Annotated[float | None, Field(gt=0)] = None
    top_k: Annotated[int | None, Field(ge=0)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None

    def sides(self) -> tuple[int | None, int | None]:
        """Return height and width in pixels; None is the model's own."""
        found = SIZE.fullmatch(self.size)
        return (int(found[2]), int(found[1])) if found else (None, None)

    def sampling(self) -> dict[str, Any]:
        """Return the settings of `generate` that were given."""
        given = {name: getattr(self, name) for name in SAMPLING if getattr(self, name) is not None}
        if "guidance_interval" in given:
            given["guidance_interval"] = tuple(given["guidance_interval"])
        return given


class GenerationBody(ImageBody):
    """A picture to generate."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})


class EditBody(ImageBody):
    """A picture to edit; sent as multipart/form-data, with `image` and optionally `mask` as files."""

    strength: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="JanusFlow models only: how far from the picture; 0.6 by default, 1 with a mask.",
        ),
    ] = None
    paste_original: Annotated[bool | None, Field(description="Whether other pixels stay exactly the same.")] = None
    image_guidance_scale: Annotated[
        float | None, Field(ge=0, description="Janus models only: a larger one follows the picture less closely.")
    ] = None

    model_config = ConfigDict(strict=False)  # values of a form are always strings
