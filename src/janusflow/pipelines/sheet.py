"""Pictures on disk: PNG files that record how they were made, and contact sheets."""

from __future__ import annotations

import itertools
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from janusflow.arguments import quoted
from janusflow.files import remove_leftovers, temporary_path
from janusflow.pipelines.provenance import png_text

SHOWN_SIDE = 128  # pictures smaller than this are enlarged by an integer factor on a sheet
MARGIN = 8
LINE_HEIGHT = 14
CHARACTER_WIDTH = 6


def save_png(picture: Image.Image, file: Path, metadata: Mapping[str, object]) -> None:
    """Write a PNG with text chunks to a temporary file and rename it, so that no half-written file is ever seen.

    Args:
        picture: the picture; one that `generate` returned keeps its provenance.
        file: the file to write.
        metadata: additional text, by key.

    Raises:
        OSError: if the folder cannot be written.
    """
    with temporary_path(file, tidy=False) as temporary:  # one of many files: `make_folder` tidies
        _write_png(picture, temporary, metadata)
        temporary.replace(file)


def save_new_png(picture: Image.Image, file: Path, metadata: Mapping[str, object]) -> Path:
    """Write a PNG as `save_png` does, but never replace a file: if the name is taken, -2, -3, ... is appended to it.

    If several processes write the same name at the same time, each gets its own.

    Returns:
        The file.
    """
    with temporary_path(file, tidy=False) as temporary:
        _write_png(picture, temporary, metadata)
        names = (file.with_stem(f"{file.stem}-{number}") for number in itertools.count(2))
        return next(free for free in itertools.chain([file], names) if _place(temporary, free))


def _write_png(picture: Image.Image, file: Path, metadata: Mapping[str, object]) -> None:
    with file.open("xb") as stream:
        picture.save(stream, format="PNG", pnginfo=png_text(picture.info, metadata))


def _place(temporary: Path, file: Path) -> bool:
    """Move a file to a name if that is free, and return whether it was. With hard links, the file appears complete."""
    try:
        file.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: the empty file claims the name
        try:
            file.open("xb").close()
        except FileExistsError:
            return False
        temporary.replace(file)
    return True


def make_folder(folder: Path) -> Path:
    """Return a writable folder, created if it does not exist, and remove what killed processes left in it.

    Raises:
        ValueError: if it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"folder {quoted(str(folder))} cannot be written: {error.strerror}") from error
    remove_leftovers(folder)
    return folder


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Run `make_folder` for files written in the body; if the body fails, remove folders created for it that are empty.

    Raises:
        ValueError: if it cannot be created or written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


def contact_sheet(pictures: Sequence[Image.Image], labels: Sequence[str], *, columns: int = 4) -> Image.Image:
    """Arrange pictures in a grid, each with its label below it.

    Args:
        pictures: at least one; all are shown at the size of the first.
        labels: one per picture; wrapped to the picture's width.
        columns: maximum number of pictures side by side.
    """
    side = pictures[0].width
    factor = max(1, -(-SHOWN_SIDE // side))
    width, height = side * factor, pictures[0].height * factor
    lines = [textwrap.wrap(label, max(width // CHARACTER_WIDTH, 8)) for label in labels]
    text = LINE_HEIGHT * max(map(len, lines))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell_width, cell_height = width + MARGIN, height + text + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (picture, label) in enumerate(zip(pictures, lines, strict=True)):
        x, y = MARGIN + index % columns * cell_width, MARGIN + index // columns * cell_height
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x, y + height + 2), "\n".join(label), fill="black", font=font, spacing=2)
    return sheet
