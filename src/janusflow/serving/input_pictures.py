"""Pictures that clients send: bytes or addresses, checked before they are decoded. No path is ever opened."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from janusflow.engine.inpainting import fit_mask, fit_picture
from janusflow.pipelines.provenance import input_digests
from janusflow.processing.images import load_image
from janusflow.serving.errors import invalid
from janusflow.serving.fetch import Fetcher
from janusflow.serving.settings import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
DATA_URI = re.compile(r"data:[\w.+/-]*(?:;[\w.=+-]+)*;base64,", re.ASCII)
OPAQUE = 128  # smallest alpha of a mask pixel that is kept


async def picture_bytes(url: str, fetcher: Fetcher) -> bytes:
    """Return the bytes of a data URI, or those at an http(s) address.

    Raises:
        ApiError: for anything else.
    """
    if url.startswith(("http://", "https://")):
        return await fetcher.fetch(url)
    found = DATA_URI.match(url)
    if found is None:
        raise invalid("image_url is neither an http(s) address nor a data:image/...;base64, URI", "messages")
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("image_url is a data URI that does not hold base64 data", "messages") from error


def open_picture(data: bytes, limits: Limits, param: str) -> Image.Image:
    """Open the picture in some bytes without decoding it.

    Raises:
        ApiError: if the picture has another format or too many pixels.
    """
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's readers raise nearly anything
        raise invalid(f"{param} is not a readable picture; {', '.join(FORMATS)} are supported", param) from error
    if opened.width * opened.height > limits.max_input_pixels:
        raise invalid(
            f"{param} has {opened.width} x {opened.height} pixels; at most {limits.max_input_pixels} are allowed", param
        )
    return opened


def read_picture(data: bytes, limits: Limits, param: str) -> Image.Image:
    """Read a picture as upright RGB.

    Raises:
        ApiError: as in `open_picture`.
        ValueError: if the picture is damaged.
    """
    return load_image(open_picture(data, limits, param))


def read_mask(data: bytes, limits: Limits) -> np.ndarray:
    """Return where a mask is transparent: (height, width) bool, True where the picture is generated anew.

    Raises:
        ApiError: as in `open_picture`, and if the mask is damaged or has no transparent pixels.
    """
    opened = open_picture(data, limits, "mask")
    if not opened.has_transparency_data:
        raise invalid("mask has no transparent pixels; make those transparent that are to be generated anew", "mask")
    try:
        alpha = np.asarray(opened.convert("RGBA"))[..., 3]
    except Exception as error:  # Pillow's readers raise nearly anything
        raise invalid("mask is damaged or cut off", "mask") from error
    transparent: np.ndarray = alpha < OPAQUE
    if not transparent.any():
        raise invalid("mask has no transparent pixels; make those transparent that are to be generated anew", "mask")
    return transparent


@dataclass(frozen=True)
class EditedPicture:
    """Picture that an edit starts from.

    Attributes:
        image: the picture.
        mask: (height, width) bool, True where it is generated anew; None is everywhere.
        digests: of both as they were sent; see `janusflow.pipelines.provenance.input_digests`.
    """

    image: Image.Image
    mask: np.ndarray | None
    digests: Mapping[str, Sequence[str]]

    def fitted(self, height: int, width: int) -> EditedPicture:
        """Return picture and mask at the size that is generated, from which the same result is generated."""
        levels = ((fit_picture(self.image, height, width) + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(levels.permute(1, 2, 0).numpy())
        mask = None if self.mask is None else fit_mask(self.mask, height, width)[0].bool().numpy()
        return EditedPicture(image, mask, self.digests)


def read_edited(image: bytes, mask: bytes | None, limits: Limits) -> EditedPicture:
    """Read the picture of an edit, and its mask.

    Raises:
        ApiError: as in `read_picture` and `read_mask`, and if the two differ in size.
        ValueError: if the picture is damaged.
    """
    picture = read_picture(image, limits, "image")
    digests = {"image": input_digests("image", picture)}
    if mask is None:
        return EditedPicture(picture, None, digests)
    chosen = read_mask(mask, limits)
    if chosen.shape != (picture.height, picture.width):
        height, width = chosen.shape
        raise invalid(f"mask has {width} x {height} pixels, and image {picture.width} x {picture.height}", "mask")
    return EditedPicture(picture, chosen, {**digests, "mask": input_digests("mask", chosen)})
