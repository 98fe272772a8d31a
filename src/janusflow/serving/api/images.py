"""`/v1/images/generations` and `/v1/images/edits`: pictures from prompts and from other pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from janusflow.engine.generation import LARGEST_SEED
from janusflow.pipelines.base import Pipeline
from janusflow.serving.api.body import without_nulls
from janusflow.serving.api.documented import ERRORS
from janusflow.serving.api.image_answer import ImageAnswer
from janusflow.serving.api.image_body import EditBody, GenerationBody, ImageBody
from janusflow.serving.api.quality import with_preset
from janusflow.serving.api.server import Server, seed_of, server_of, settings_of
from janusflow.serving.api.sse import EventStream, event
from janusflow.serving.api.waiting import Waiting
from janusflow.serving.errors import as_api_error, from_validation, invalid
from janusflow.serving.input_pictures import EditedPicture, read_edited
from janusflow.serving.jobs import PictureDone, PictureRequest, Preview

router = APIRouter(tags=["pictures"])
FILES = ("image", "mask")
LISTS = ("guidance_interval",)
SMALL = 2**14  # pixels of a picture that is encoded in about a millisecond
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {
                            "type": "string",
                            "format": "binary",
                            "description": "Generated anew where transparent.",
                        },
                        **EditBody.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}


@router.post("/v1/images/generations", summary="Generate pictures", responses=ERRORS)
async def generations(body: GenerationBody, http: Request) -> Response:
    """Generate pictures from a prompt, in OpenAI's format, whole or as a stream with previews."""
    return await _respond(http, body, "image_generation", {})


@router.post("/v1/images/edits", summary="Edit a picture", responses=ERRORS, openapi_extra=FORM)
async def edits(http: Request) -> Response:
    """Change the picture as the prompt says; with a mask, only where the mask is transparent."""
    server = server_of(http)
    async with http.form(max_files=len(FILES), max_fields=64, max_part_size=server.limits.max_body) as form:
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            plain = name.removesuffix("[]")
            if plain in LISTS:
                fields.setdefault(plain, []).append(value)
            elif plain in fields:
                raise invalid(f"{plain} is given more than once; give it once", plain)
            else:
                fields[plain] = value
        files = {name: fields.pop(name, None) for name in FILES}
        for name, value in files.items():
            if value is not None and not isinstance(value, UploadFile):
                raise invalid(f"{name} is a text; send the picture as a file of multipart/form-data", name)
        data = {name: await file.read() for name, file in files.items() if file is not None}
    if "image" not in data:
        raise invalid("image is missing; send the picture as a file of multipart/form-data", "image")
    try:
        body = EditBody.model_validate(without_nulls({name: value for name, value in fields.items() if value != ""}))
    except ValidationError as error:
        raise from_validation(error.errors()) from error
    own = {"strength": body.strength, "image_guidance_scale": body.image_guidance_scale}
    given: dict[str, Any] = {**data, **{name: value for name, value in own.items() if value is not None}}
    if "mask" in data:
        given["paste_original"] = body.paste_original
    elif body.paste_original is not None:
        raise invalid("paste_original needs a mask", "paste_original")
    return await _respond(http, body, "image_edit", given)


async def _respond(http: Request, body: ImageBody, kind: str, given: Mapping[str, Any]) -> Response:
    """Submit the pictures of a request, and answer it.

    Args:
        http: the request.
        body: body of the request.
        kind: prefix of a stream's event names.
        given: settings of `generate` that only edits have, with pictures as bytes.
    """
    server, arrived = server_of(http), time.monotonic()
    name, model = server.model(body.model)
    _check_limits(server, body)
    try:
        settings = await asyncio.to_thread(_settings, server, model, body, given)
    except ValueError as error:
        found = as_api_error(error)
        found.param = "size" if found.param in ("height", "width") else found.param
        raise found from error
    edited = vars(await read_edit(server, given, settings)) if "image" in given else {}
    first = seed_of(http, body.seed)
    requests = [
        PictureRequest(model, name, body.prompt, first + number, settings, previews=body.partial_images, **edited)
        for number in range(body.n)
    ]
    answer = ImageAnswer(kind, body, model, settings)
    waiting = Waiting(server.scheduler, http, stream=body.stream)
    waiting.submit(requests, priority=body.priority, timeout=server.timeout(body, arrived))
    if body.stream:
        return EventStream(waiting, _events(waiting, answer))
    pictures: dict[int, Any] = {}
    async for number, one in waiting.events():
        if isinstance(one, PictureDone):
            pictures[number] = await _encoded(answer.entry, one.picture)
    return JSONResponse(answer.whole([pictures[number] for number in range(body.n)]))


async def read_edit(server: Server, given: Mapping[str, Any], settings: Mapping[str, Any]) -> EditedPicture:
    """Read the pictures of an edit, at the size that is generated if the model has sizes.

    Few requests do so at a time, because pictures are large. A model with one size reads them at their own size.

    Raises:
        ApiError: if a picture is not allowed.
    """
    async with server.reading:
        try:
            found = await asyncio.to_thread(read_edited, given["image"], given.get("mask"), server.limits)
        except ValueError as error:
            raise as_api_error(error) from error
        if "height" not in settings:
            return found
        return await asyncio.to_thread(found.fitted, settings["height"], settings["width"])


async def _encoded(encode: Callable[[Image.Image], dict[str, Any]], picture: Image.Image) -> dict[str, Any]:
    """Run `encode(picture)`, in another thread if it takes longer than a switch, which slows the model's thread."""
    if picture.width * picture.height <= SMALL:
        return encode(picture)
    return await asyncio.to_thread(encode, picture)


async def _events(waiting: Waiting, answer: ImageAnswer) -> AsyncIterator[str]:
    async for _, one in waiting.events():
        if isinstance(one, Preview):
            data = await _encoded(partial(answer.partial, one.index), one.picture)
        else:
            assert isinstance(one, PictureDone)
            data = await _encoded(answer.completed, one.picture)
        yield event(data, data["type"])


def _check_limits(server: Server, body: ImageBody) -> None:
    """Refuse values that exceed a limit of this server, or that do not go together.

    Raises:
        ApiError: if a value is refused; names the parameter.
    """
    server.check_most("n", body.n, server.limits.max_n)
    server.check_most("num_inference_steps", body.num_inference_steps or 0, server.limits.max_steps)
    if len(body.prompt) > server.limits.max_prompt:
        raise invalid(f"prompt has {len(body.prompt)} characters; at most {server.limits.max_prompt}", "prompt")
    if body.stream and body.n > 1:
        raise invalid(f"n is {body.n}; a stream has one picture", "n")
    if body.partial_images and not body.stream:
        raise invalid("partial_images needs stream to be true", "partial_images")
    if body.output_compression is not None and body.output_format == "png":
        raise invalid("output_compression is for jpeg and webp", "output_compression")
    if body.seed is not None and body.seed + body.n - 1 > LARGEST_SEED:
        raise invalid(
            f"seed is {body.seed}, and picture i gets seed + i; the largest is {LARGEST_SEED - body.n + 1}", "seed"
        )


def _settings(server: Server, model: Pipeline, body: ImageBody, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of `generate` for this request, checked.

    Raises:
        ApiError: for a setting that the model does not take.
        ValueError: for a value that is not allowed.
    """
    height, width = body.sides()
    sides = {name: value for name, value in (("height", height), ("width", width)) if value is not None}
    asked = {**with_preset(body, "preset" in model.sampling), **given}
    known = settings_of(model)
    for name in asked:
        if name not in known:
            raise invalid(f"{name} is not a setting of a {type(model).__name__} model", name, "unknown_parameter")
    _check_pixels(server, sides)
    if sides and "height" not in known:
        raise invalid(f"size is {body.size}; a {type(model).__name__} model has only one, which auto gives", "size")
    found = model.resolve(body.prompt, {**asked, **sides})
    server.check_most("num_inference_steps", found.get("num_inference_steps") or 0, server.limits.max_steps)
    _check_pixels(server, found)
    return found


def _check_pixels(server: Server, settings: Mapping[str, Any]) -> None:
    height, width = settings.get("height", 0), settings.get("width", 0)
    most = server.limits.max_output_pixels
    if height * width > most:
        raise invalid(f"size is {width}x{height}; this server allows at most {most} pixels", "size")
