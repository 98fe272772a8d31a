"""A table of pictures: one line per subject, one column per style, with frames around what training never sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, LABEL, HEAD, SHOWN = 72, 190, 24, 64  # pixels of a cell, a label, the heading and a picture
HELD = "red"  # color of the frame

Cell = tuple[Image.Image, bool]


def style_table(lines: Sequence[tuple[str, Mapping[str, Cell]]], styles: Sequence[str]) -> Image.Image:
    """Draw a table of subjects by style.

    Args:
        lines: a label, and its pictures by style; true for a picture that training never sees.
        styles: the columns, in order; a style that a line does not have stays empty.
    """
    table = Image.new("RGB", (LABEL + CELL * len(styles), HEAD + CELL * len(lines)), "white")
    draw, font = ImageDraw.Draw(table), ImageFont.load_default(12)
    draw.text((6, 5), "framed: never in training", fill=HELD, font=font)
    for column, style in enumerate(styles):
        draw.text((LABEL + column * CELL + 2, 5), style, fill="black", font=ImageFont.load_default(10))
    for line, (label, cells) in enumerate(lines):
        y = HEAD + line * CELL
        draw.text((6, y + CELL // 2 - 7), label[:32], fill="black", font=font)
        for style, (picture, held) in cells.items():
            x = LABEL + styles.index(style) * CELL
            table.paste(picture.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS), (x + 4, y + 4))
            if held:
                draw.rectangle((x + 1, y + 1, x + CELL - 2, y + CELL - 2), outline=HELD, width=2)
    return table
