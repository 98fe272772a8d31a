"""Rendering: vectors and raster files on plain backgrounds."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageColor

from janusflow.pictograms.captions import PLAIN
from janusflow.pictograms.pictures import Collection
from janusflow.pictograms.render import BACKGROUNDS, TINTS, encoded, render

SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path fill="currentColor" d="M1 1h2v2H1z"/></svg>'
WIDE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><rect width="8" height="4" fill="#f00"/></svg>'


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_tint_and_a_background_are_exact(background: str) -> None:
    picture = render(SQUARE, 64, tint="green").on(background)
    assert picture.size == (64, 64) and picture.mode == "RGB"
    assert picture.getpixel((32, 32)) == ImageColor.getrgb(TINTS["green"])
    assert picture.getpixel((2, 2)) == BACKGROUNDS[background]


def test_what_is_written_is_what_was_rendered() -> None:
    picture = render(SQUARE, 64, tint="red").on("lavender")
    with Image.open(io.BytesIO(encoded(picture))) as opened:
        assert opened.convert("RGB").tobytes() == picture.tobytes()


def test_a_wide_drawing_is_centered() -> None:
    picture = render(WIDE, 64).on(PLAIN)
    assert picture.getpixel((32, 32)) == (255, 0, 0)
    assert picture.getpixel((32, 4)) == picture.getpixel((32, 60)) == BACKGROUNDS[PLAIN]


def test_raster_files_keep_their_colors_at_the_edges() -> None:
    source, buffer = Image.new("RGBA", (128, 128), (0, 0, 0, 0)), io.BytesIO()
    source.paste((255, 0, 0, 255), (32, 32, 96, 96))
    source.save(buffer, format="PNG")
    pixels = render(buffer.getvalue(), 64).pixels.getdata()
    visible = [pixel for pixel in pixels if pixel[3] > 100]
    assert visible and all(pixel[0] > 250 and pixel[1] < 5 for pixel in visible)  # no black from the empty part


def test_the_pictures_of_every_style_are_rendered(collection: Collection) -> None:
    for picture in collection.pictures():
        if picture.subject.label in ("fox", "flag: France"):
            colors = render(picture.drawing.art, 64).on(PLAIN).getcolors(4096) or []
            assert len(colors) > 5, picture.id


@pytest.mark.parametrize("art", ["<svg", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"/>'])
def test_what_cannot_be_seen_is_refused(art: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be rendered|nothing of it is visible"):
        render(art, 64)
