"""Render drawings to pixels: vectors with resvg, raster files by scaling, both on a plain background."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from janusflow.extras import require

BACKGROUNDS = {
    "white": (255, 255, 255),
    "light blue": (173, 216, 245),
    "light green": (180, 228, 178),
    "light yellow": (252, 240, 164),
    "light pink": (250, 197, 214),
    "light grey": (205, 208, 212),
    "lavender": (211, 197, 242),
}
TINTS = {
    "black": "#1b1b1f",
    "red": "#d92b2b",
    "orange": "#f07d14",
    "yellow": "#e0b000",
    "green": "#2c9a3f",
    "blue": "#2465d6",
    "purple": "#8338c4",
    "pink": "#e84f9a",
    "brown": "#80502a",
}
CURRENT = "currentColor"  # color of a drawing in one color


@dataclass(frozen=True)
class Rendered:
    """A picture without its background.

    Attributes:
        pixels: RGBA, square.
    """

    pixels: Image.Image

    def on(self, background: str) -> Image.Image:
        """Return the picture in RGB on a background of `BACKGROUNDS`."""
        ground = Image.new("RGBA", self.pixels.size, (*BACKGROUNDS[background], 255))
        ground.alpha_composite(self.pixels)
        return ground.convert("RGB")


def render(art: str | bytes, size: int, *, tint: str = "") -> Rendered:
    """Render a drawing.

    Args:
        art: an SVG document, or the bytes of a raster file.
        size: side of the square in pixels; other shapes are centered in it.
        tint: key of `TINTS` for drawings in one color, which are black otherwise.

    Raises:
        ValueError: if the drawing cannot be rendered, or nothing of it is visible.
    """
    if isinstance(art, str):
        image = _vectors(art.replace(CURRENT, TINTS[tint or "black"]), size)
    else:
        with Image.open(io.BytesIO(art)) as opened:
            image = opened.convert("RGBA")
    scale = size / max(image.size)
    if scale != 1:
        sides = [max(round(side * scale), 1) for side in image.size]
        image = image.convert("RGBa").resize((sides[0], sides[1]), Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    if square.getbbox() is None:
        raise ValueError("nothing of it is visible")
    return Rendered(square)


def _vectors(document: str, size: int) -> Image.Image:
    require("rendering pictograms", "resvg_py")
    import resvg_py

    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=document, width=size, skip_system_fonts=True))
    except Exception as error:  # whatever the renderer raises for one drawing
        raise ValueError(f"it cannot be rendered ({' '.join(str(error).split())[:80]})") from error
    with Image.open(io.BytesIO(png)) as opened:
        return opened.convert("RGBA")


def encoded(picture: Image.Image) -> bytes:
    """Encode a picture as lossless WebP, which has two thirds of the size of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True, method=2, quality=20)
    return buffer.getvalue()
