"""Whatever picture a user has either opens as they expect or is refused in one sentence."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.processing.images import MAX_PIXELS, load_image, load_images

RED, SIDE = (200, 30, 40), 20


def saved(image: Image.Image, file: Path, **options: object) -> Path:
    image.save(file, **options)
    return file


def corner(image: Image.Image) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_the_usual_sources(tmp_path: Path) -> None:
    image = Image.new("RGB", (SIDE, SIDE), RED)
    file = saved(image, tmp_path / "red.png")
    data = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    array = np.asarray(image)
    for source in (file, str(file), file.read_bytes(), data, image, array, array.astype(np.float32) / 255):
        assert corner(load_image(source)) == RED
    assert len(load_images([file, image])) == 2
    assert load_images(None) == []
    assert corner(load_images(array)[0]) == RED


def test_a_given_image_is_not_handed_back_itself() -> None:
    image = Image.new("RGB", (SIDE, SIDE), RED)
    load_image(image).paste((0, 0, 0), (0, 0, SIDE, SIDE))
    assert corner(image) == RED


def test_palette_grey_and_bilevel(tmp_path: Path) -> None:
    image = Image.new("RGB", (SIDE, SIDE), RED)
    assert corner(load_image(saved(image.quantize(8), tmp_path / "palette.png"))) == pytest.approx(RED, abs=3)
    assert corner(load_image(saved(Image.new("L", (SIDE, SIDE), 77), tmp_path / "grey.png"))) == (77, 77, 77)
    assert corner(load_image(saved(Image.new("1", (SIDE, SIDE), 1), tmp_path / "bilevel.png"))) == (255, 255, 255)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (SIDE, SIDE), (*RED, 0))
    assert corner(load_image(saved(clear, tmp_path / "clear.png"))) == (255, 255, 255)
    half = Image.new("LA", (SIDE, SIDE), (0, 128))
    assert corner(load_image(saved(half, tmp_path / "half.png"))) == pytest.approx((127, 127, 127), abs=1)
    palette = Image.new("P", (SIDE, SIDE), 0)
    palette.putpalette([*RED, 0, 0, 0])
    assert corner(load_image(saved(palette, tmp_path / "clear.gif", transparency=0))) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((SIDE, SIDE), 32768, dtype=np.uint16))
    assert corner(load_image(saved(deep, tmp_path / "deep.png"))) == pytest.approx((127, 127, 127), abs=1)
    assert corner(load_image(saved(deep, tmp_path / "deep.tiff"))) == pytest.approx((127, 127, 127), abs=1)
    dark = Image.fromarray(np.full((SIDE, SIDE), 200, dtype=np.uint16))
    assert corner(load_image(saved(dark, tmp_path / "dark.png"))) == (0, 0, 0)
    unit = Image.fromarray(np.full((SIDE, SIDE), 0.5, dtype=np.float32))
    assert corner(load_image(saved(unit, tmp_path / "unit.tiff"))) == pytest.approx((127, 127, 127), abs=1)


def test_cmyk(tmp_path: Path) -> None:
    print_colors = Image.new("RGB", (SIDE, SIDE), RED).convert("CMYK")
    assert corner(load_image(saved(print_colors, tmp_path / "cmyk.jpg", quality=95))) == pytest.approx(RED, abs=8)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in (RED, (0, 255, 0))]
    file = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert corner(load_image(file)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("damage", [b"II*\0", b"Exif\0\0MM\0*", b"\xff" * 9])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_picture_with_damaged_exif_is_shown_as_it_lies(tmp_path: Path, damage: bytes, suffix: str) -> None:
    file = saved(Image.new("RGB", (40, 20), RED), tmp_path / f"odd.{suffix}", exif=damage)
    assert load_image(file).size == (40, 20)


def test_whatever_a_reader_raises_the_picture_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(Image.new("RGB", (40, 20), RED), tmp_path / "odd.png")

    def fail(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match="odd.png' is damaged or cut off: unpack"):
        load_image(file)


def test_exif_rotation_is_honoured(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    turned = load_image(saved(image, tmp_path / "turned.jpg", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5)) == pytest.approx(RED, abs=8)
    assert turned.getpixel((10, 35)) == pytest.approx((255, 255, 255), abs=8)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that promises so many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 5_001), (30_000, 30_000), (2**31 - 1, 1)])
def test_decompression_bombs_are_refused_before_they_unfold(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(ValueError, match="50 megapixels"):
        load_image(png_of_size(*size))


def test_zero_sized(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for source in (tmp_path / "empty.png", b"", np.zeros((0, 5, 3), np.uint8), Image.new("RGB", (0, 5))):
        with pytest.raises(ValueError, match=r"empty|shape|no pixels"):
            load_image(source)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_truncated_anywhere(suffix: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, format={"jpg": "JPEG", "tiff": "TIFF"}.get(suffix, suffix.upper()))
    whole = buffer.getvalue()
    for keep in (1, 7, 20, len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10):
        with pytest.raises(ValueError, match="damaged|not a readable image"):
            load_image(whole[:keep])


def test_missing_folder_text_and_address(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for source, words in (
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "notes.txt", "is not a readable image"),
        ("https://example.com/cat.png", "is an address"),
        ("data:image/png;base64,@@@", "base64"),
        (b"GIF89a", "damaged|not a readable image"),
        (7, "picture is 7; expected a path"),
    ):
        with pytest.raises(ValueError, match=words):
            load_image(source)  # type: ignore[arg-type]


def test_arrays_that_are_no_pictures() -> None:
    for array in (
        np.zeros((3, 4, 5, 3), np.uint8),
        np.zeros((3, 4, 2), np.uint8),
        np.zeros((3, 4, 3), np.int64),
        np.full((3, 4, 3), 1.5),
        np.full((3, 4, 3), np.nan),
    ):
        with pytest.raises(ValueError, match="array"):
            load_image(array)


def test_an_error_of_pillow_names_the_picture(tmp_path: Path) -> None:
    file = saved(Image.new("RGB", (SIDE, SIDE), RED), tmp_path / "red.ppm")
    whole = file.read_bytes()
    for place in (3, 5, 8):  # within the header, where Pillow raises ValueError
        file.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"red.ppm' is (damaged or cut off|no picture)"):
            load_image(file)
