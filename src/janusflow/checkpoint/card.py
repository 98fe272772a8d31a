"""Model cards: where weights came from, and the licence that travels with the released ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from janusflow.checkpoint.load import Checkpoint

DEEPSEEK_LICENCE = "https://github.com/deepseek-ai/DeepSeek-LLM/blob/HEAD/LICENSE-MODEL"
RELEASED = ("official", "paddle")  # layouts that released weights have
HEADER = """---
license: {licence}
{extra}library_name: {library}
pipeline_tag: image-text-to-text
tags: [janusflow, text-to-image]
---

# {title}

{text}
"""
DEEPSEEK = """
The released weights of the Janus family, and what is made of them, stand under the
[DeepSeek Model License]({link}).
"""


def write_card(folder: Path, checkpoint: Checkpoint | None, *, title: str, text: str, licence: str = "other") -> None:
    """Puts a model card, and the licence files of the source, into a folder of weights.

    A card that the source's folder has stays the card. Weights in a released layout get the DeepSeek Model License.

    Args:
        folder: of the new weights.
        checkpoint: what they were made of, if it is known.
        title: of the card.
        text: its first paragraph.
        licence: of weights that are one's own, as the hub spells it.
    """
    source = None if checkpoint is None else checkpoint.folder
    for file in [] if source is None else source.glob("LICENSE*"):
        shutil.copy(file, folder)
    released = checkpoint is not None and checkpoint.layout in RELEASED
    if source is not None and (source / "README.md").is_file() and not released:
        shutil.copy(source / "README.md", folder)
        return
    extra = ""
    if released:
        licence, extra = "other", f"license_name: deepseek\nlicense_link: {DEEPSEEK_LICENCE}\n"
        text = text.rstrip() + "\n" + DEEPSEEK.format(link=DEEPSEEK_LICENCE).rstrip()
    janus = checkpoint is not None and checkpoint.family == "Janus"
    library = "transformers" if janus else "janusflow"
    card = HEADER.format(licence=licence, extra=extra, library=library, title=title, text=text)
    (folder / "README.md").write_text(card, encoding="utf-8")
