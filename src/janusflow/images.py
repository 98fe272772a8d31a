"""Pictures from anywhere, as upright RGB: what a user hands over becomes one or is refused in one sentence."""

from __future__ import annotations

import base64
import binascii
import io
import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Image.Image"

MAX_PIXELS = 50_000_000
BACKDROP = (255, 255, 255)  # what shows through transparent pixels


def load_image(source: ImageSource) -> Image.Image:
    """One picture as an RGB image of its own.

    EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, CMYK and palettes are
    converted, and of an animation the first frame is taken.

    Args:
        source: a file's path, a `data:image/...;base64,` URL, a file's bytes, a PIL image, or an array of shape
            (H, W), (H, W, 3) or (H, W, 4): uint8 in [0, 255] or floats in [0, 1].

    Raises:
        ValueError: if it is missing, empty, damaged, no picture, or larger than 50 megapixels.
    """
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _open(source)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{name} has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are allowed"
                )
            if not width or not height:
                raise ValueError(f"{name} has no pixels ({width} x {height})")
            image.load()
            return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} has too many pixels; at most {MAX_PIXELS // 10**6} megapixels are allowed") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is no picture that can be read (PNG, JPEG, WebP, GIF, ... are)") from error
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist") from error
    except IsADirectoryError as error:
        raise ValueError(f"{name} is a folder, not a picture") from error
    except ValueError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{name} is damaged or cut off: {error}") from error


def load_images(sources: ImageSource | Sequence[ImageSource] | None) -> list[Image.Image]:
    """`load_image` for none, one or several."""
    if sources is None:
        return []
    if isinstance(sources, (str, bytes, os.PathLike, np.ndarray, Image.Image)):
        return [load_image(sources)]
    if not isinstance(sources, (list, tuple)):
        raise ValueError(f"pictures are given as one or a list of them, not {type(sources).__name__}")
    return [load_image(source) for source in sources]


def _name(source: ImageSource) -> str:
    if isinstance(source, (str, os.PathLike)):
        text = str(source)
        return "the data URL" if text.startswith("data:") else f"picture {text!r}"
    return "the picture"


def _open(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str) and source.startswith("data:"):
        try:
            source = base64.b64decode(source.split(",", 1)[1], validate=True)
        except (IndexError, binascii.Error) as error:
            raise ValueError("the data URL does not hold base64 data after a comma") from error
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ValueError(f"picture {source!r} is an address; download it and give the file (nothing is fetched here)")
    if isinstance(source, bytes):
        if not source:
            raise ValueError("the picture is empty (0 bytes)")
        return Image.open(io.BytesIO(source))
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.path.expanduser(source))
        if path.is_file() and path.stat().st_size == 0:
            raise ValueError(f"picture {str(source)!r} is empty (0 bytes)")
        return Image.open(path)
    raise ValueError(f"a picture is a path, bytes, an array or a PIL image, not {type(source).__name__}")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; as it lies where that is damaged, as viewers show it."""
    try:
        return ImageOps.exif_transpose(image)
    except (ValueError, OSError, SyntaxError, struct.error, LookupError, TypeError):  # all seen of damaged EXIF
        return image


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"the array has shape {array.shape}; allowed are (H, W), (H, W, 3) and (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("the array of floats must hold values in [0, 1]; integers in [0, 255] must be uint8")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"the array holds {array.dtype}; allowed are uint8 in [0, 255] and floats in [0, 1]")
    return Image.fromarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (*BACKDROP, 255))
        image = Image.alpha_composite(backdrop, rgba)
    converted = image.convert("RGB")
    return converted if converted is not image else image.copy()


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit and float grey levels, which Pillow would clip at 255, scaled to 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255)
    top = 65535.0 if deep else 255.0
    if image.mode == "F" and values.max(initial=0) <= 1:
        top = 1.0
    return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8))
