"""Load pictures as upright RGB images and masks as arrays, from files, bytes, arrays, tensors or PIL images.

`pixels.py` turns a picture into what f_enc reads; `engine/inpainting.py` uses masks.
"""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from janusflow.arguments import quoted, shortened

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Tensor | Image.Image"
T = TypeVar("T")

MAX_PIXELS = 50_000_000
BACKDROP = (255, 255, 255)  # behind transparent pixels
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in a grey level (ITU-R BT.601, as in Pillow)


class PictureError(ValueError):
    """Raised for an unusable picture or mask: tells our one-sentence errors apart from `ValueError`s of Pillow."""


def load_image(source: ImageSource) -> Image.Image:
    """Load a picture as a new RGB image.

    EXIF rotation is applied, transparent pixels are put on white, 16-bit grey is scaled to 8 bits, CMYK and palettes
    are converted, and the first frame of an animation is used.

    Args:
        source: a file's path, a `data:image/...;base64,` URL, a file's bytes, a PIL image, or an array of shape
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with uint8 in [0, 255] or floats in [0, 1]; a torch tensor has its
            channels first.

    Raises:
        ValueError: if it is missing, empty, damaged, not a picture, or larger than 50 megapixels.

    Example:
        >>> load_image(np.zeros((2, 3), np.uint8)).size
        (3, 2)
    """
    return _read(source, _to_rgb)


def load_mask(source: ImageSource) -> np.ndarray:
    """Return where a mask is bright and opaque, (H, W) bool.

    A pixel counts if its grey level times its opacity is at least half of the range, as in diffusers. The range of
    whole numbers is [0, 1] if none is above 1 (label images and NumPy masks of 0 and 1), else [0, 255], or [0, 65535]
    for 16 bits.

    Args:
        source: as in `load_image`, or an array of bools or of any numbers, of shape (H, W) or (H, W, 1 to 4).

    Raises:
        ValueError: as in `load_image`.

    Example:
        >>> load_mask(np.array([[0, 1], [1, 0]])).tolist()
        [[False, True], [True, False]]
    """
    return _read(source, _bright)


def _read(source: ImageSource, convert: Callable[[Any], T]) -> T:
    """Open, check, rotate and convert a source. All errors of Pillow are turned into one sentence."""
    name = _name(source)
    try:
        image = _open(source, as_picture=convert is _to_rgb)
        height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
        if width * height > MAX_PIXELS:
            raise PictureError(
                f"{name} has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are allowed"
            )
        if not width or not height:
            raise PictureError(f"{name} has no pixels ({width} x {height})")
        if isinstance(image, np.ndarray):
            return convert(image)
        image.load()
        return convert(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(
            f"{name} has too many pixels; at most {MAX_PIXELS // 10**6} megapixels are allowed"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a readable image (PNG, JPEG, WebP, GIF, ... are)") from error
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist") from error
    except IsADirectoryError as error:
        raise PictureError(f"{name} is a folder, not a picture") from error
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, ...
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise PictureError(
                f"{name} is too long for a path; give base64 data as a data:image/...;base64, URL"
            ) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else shortened(str(error))
        raise PictureError(f"{name} is damaged or cut off: {reason}") from error


def load_images(sources: ImageSource | Sequence[ImageSource] | None) -> list[Image.Image]:
    """Load none, one or several pictures with `load_image`; an array (N, H, W, C) or tensor (N, C, H, W) is a batch."""
    return [load_image(source) for source in listed(sources)]


def load_masks(sources: ImageSource | Sequence[ImageSource] | None) -> list[np.ndarray]:
    """Load none, one or several masks with `load_mask`.

    A batch may also be (N, H, W). A tensor with three axes always is a batch, as in diffusers.
    """
    masks: list[np.ndarray] = []
    for source in listed(_with_channels(sources)):
        is_batch = isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[2] > 4
        masks += [load_mask(one) for one in (source if is_batch else [source])]
    return masks


def _with_channels(masks: Any) -> Any:
    """Turn mask tensors (N, H, W) into (N, 1, H, W); other sources are unchanged."""
    if isinstance(masks, (list, tuple)):
        return [_with_channels(one) for one in masks]
    return masks[:, None] if hasattr(masks, "detach") and masks.ndim == 3 else masks


def listed(sources: Any) -> list[Any]:
    """Return one or several sources as a list, with tensors as channels-last arrays; nothing is loaded."""
    sources = _as_array(sources)
    if sources is None:
        return []
    if isinstance(sources, np.ndarray):
        return list(sources) if sources.ndim == 4 else [sources]
    if isinstance(sources, (str, bytes, os.PathLike, Image.Image)):
        return [sources]
    if not isinstance(sources, (list, tuple)):
        raise PictureError(f"images is {quoted(sources)}; expected a picture or a list of pictures")
    arrays = [_as_array(source) for source in sources]
    return [one for a in arrays for one in (a if isinstance(a, np.ndarray) and a.ndim == 4 else [a])]


def _as_array(source: Any) -> Any:
    """Turn a torch tensor (..., C, H, W) into an array (..., H, W, C); (N, H, W) and other sources are unchanged."""
    if not hasattr(source, "detach"):
        return source
    tensor = source.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, -3, -1) if array.ndim > 3 or (array.ndim == 3 and array.shape[0] <= 4) else array


def _name(source: ImageSource) -> str:
    if isinstance(source, (str, os.PathLike)):
        text = str(source)
        return "the data URL" if text.startswith("data:") else f"picture {quoted(text)}"
    return "the picture"


def _open(source: Any, *, as_picture: bool) -> Any:
    """Return a PIL image; with `as_picture=False` an array stays an array."""
    source = _as_array(source)
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source) if as_picture else source
    if isinstance(source, str) and source.startswith("data:"):
        try:
            source = base64.b64decode(source.split(",", 1)[1], validate=True)
        except (IndexError, binascii.Error) as error:
            raise PictureError("the data URL has no base64 data after a comma") from error
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise PictureError(
            f"picture {quoted(source)} is an address, which is not downloaded; download it and give the file"
        )
    if isinstance(source, bytes):
        if not source:
            raise PictureError("the picture is empty (0 bytes)")
        return Image.open(io.BytesIO(source))
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.path.expanduser(source))
        if path.is_file() and path.stat().st_size == 0:
            raise PictureError(f"picture {quoted(str(source))} is empty (0 bytes)")
        return Image.open(path)
    raise PictureError(f"picture is {quoted(source)}; expected a path, bytes, an array, a tensor or a PIL image")


def _upright(image: Image.Image) -> Image.Image:
    """Rotate a picture according to its EXIF data; if that is damaged, leave it as it is, as viewers do."""
    try:
        return ImageOps.exif_transpose(image)
    except (ValueError, OSError, SyntaxError, struct.error, LookupError, TypeError):  # all raised by damaged EXIF data
        return image


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise PictureError(f"the array has shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) and (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise PictureError(
                "an array of floats must have values in [0, 1]; an array with values in [0, 255] must be uint8"
            )
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise PictureError(f"the array has dtype {array.dtype}; expected uint8 in [0, 255] and floats in [0, 1]")
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
    """Scale 16-bit and float grey levels, which Pillow would clip at 255, to 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255)
    top = 65535.0 if deep else 255.0
    if image.mode == "F" and values.max(initial=0) <= 1:
        top = 1.0
    return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8))


def _bright(source: Any) -> np.ndarray:
    """Return a mask as (H, W) bool; see `load_mask`."""
    if isinstance(source, Image.Image):
        if source.has_transparency_data or source.mode not in ("1", "L", "I", "F", "I;16", "I;16B", "I;16L"):
            source = source.convert("RGBA")
        source = np.asarray(source)
    if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (1, 2, 3, 4)) or 0 in source.shape:
        raise PictureError(f"the mask has shape {source.shape}; expected (H, W) and (H, W, 1 to 4)")
    channels = source[:, :, None] if source.ndim == 2 else source
    colors, opacity = (channels[..., :-1], channels[..., -1:]) if channels.shape[2] in (2, 4) else (channels, None)
    levels = _levels(colors)
    grey = levels @ LUMA if levels.shape[2] == 3 else levels[..., 0]
    return (grey if opacity is None else grey * _levels(opacity)[..., 0]) >= 0.5


def _levels(values: np.ndarray) -> np.ndarray:
    """Return grey levels of any type as float64 in [0, 1]."""
    largest = values.max(initial=0)
    top = 1.0 if largest <= 1 else 65535.0 if largest > 255 else 255.0
    if values.dtype == np.uint16 and largest > 1:
        top = 65535.0
    levels = values.astype(np.float64) / top
    if not (np.isfinite(levels).all() and levels.min(initial=0) >= 0 and levels.max(initial=0) <= 1):
        raise PictureError("the mask has values outside of its range; expected bools, [0, 1], [0, 255] and 16 bits")
    return levels
