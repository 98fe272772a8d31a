"""The contact sheet of a data set: subjects by style, with held-out pictures framed, and rows as training sees them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from janusflow.pictograms.catalogue import STYLES
from janusflow.pictograms.pictures import PHOSPHOR
from janusflow.pictograms.shards import files_of, read_table
from janusflow.pictograms.table import SHOWN, style_table
from janusflow.pipelines.sheet import contact_sheet, save_png
from janusflow.processing.images import load_image

SHEET = "sheet.png"
SUBJECTS, EXAMPLES, ACROSS = 16, 40, 8  # rows of the table, and pictures below it
COLUMNS = ("image", "text", "style", "subject", "label", "tones", "held_out", "variant")

Cells = dict[str, dict[str, dict[str, Any]]]


def write_sheet(out: Path, *, seed: int) -> None:
    """Write the `sheet.png` of a data set.

    Args:
        out: folder of the data set.
        seed: seed of the choice of pictures.
    """
    shards, other = files_of(out)
    rows = [row for file in [*shards, other] for row in read_table(file, COLUMNS).to_pylist()]
    rng = Random(f"sheet/{seed}")
    cells: Cells = defaultdict(dict)
    for row in rows:
        if not row["variant"] and row["style"] != PHOSPHOR:
            cells[row["subject"]].setdefault(row["style"], row)
    examples = [row for row in rows if not row["held_out"]]
    parts = [_table(cells, rng)] if cells else []
    if examples:
        shown = rng.sample(examples, min(EXAMPLES, len(examples)))
        pictures = [_picture(row).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS) for row in shown]
        parts.append(contact_sheet(pictures, [row["text"][:90] for row in shown], columns=ACROSS))
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    place = 0
    for part in parts:
        sheet.paste(part, (0, place))
        place += part.height
    save_png(sheet, out / SHEET, {})


def _table(cells: Cells, rng: Random) -> Image.Image:
    """Return a table of subjects that most styles have, half of them with a held-out combination."""
    styles = [name for name in STYLES if any(name in found for found in cells.values())]
    order = sorted(cells)
    rng.shuffle(order)
    order.sort(key=lambda one: -len(cells[one]))
    held = [one for one in order if any(row["held_out"] for row in cells[one].values())]
    chosen = held[: SUBJECTS // 2]
    chosen += [one for one in order if one not in held][: SUBJECTS - len(chosen)]
    lines = []
    for subject in chosen:
        first = next(iter(cells[subject].values()))
        tones = f", {' and '.join(dict.fromkeys(first['tones']))}" if first["tones"] else ""
        pictures = {style: (_picture(row), bool(row["held_out"])) for style, row in cells[subject].items()}
        lines.append((first["label"] + tones, pictures))
    return style_table(lines, styles)


def _picture(row: dict[str, Any]) -> Image.Image:
    return load_image(row["image"]["bytes"])
