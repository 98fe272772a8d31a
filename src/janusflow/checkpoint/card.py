"""Model cards: where weights came from, and the licence that travels with the released ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from janusflow.checkpoint.load import Checkpoint

LICENCE_NAME = "DeepSeek Model License"
LICENCE_FIELD = "license_name: deepseek"
DEEPSEEK_LICENCE = "https://github.com/deepseek-ai/DeepSeek-LLM/blob/HEAD/LICENSE-MODEL"
OURS = ("Written by `janusflow convert`", "Saved with janusflow")  # how cards begin that are written anew each time
RELEASED = ("official", "paddle")  # layouts that released weights have
DECLARED = re.compile(r"---\n(?:[^-].*\n)*?license: *(\S+)")  # in a card's front matter
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


def is_released(checkpoint: Checkpoint | None) -> bool:
    """Whether weights are the released ones, or made of them, as far as can be told.

    A Janus in any layout is; a JanusFlow beside a card that names their licence, or in their layout, unless its card
    declares another licence.
    """
    if checkpoint is None or checkpoint.family == "Janus":
        return checkpoint is not None
    card = checkpoint.folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if LICENCE_NAME in text or LICENCE_FIELD in text:
        return True
    declared = DECLARED.match(text)
    return checkpoint.layout in RELEASED and (declared is None or declared[1] == "other")


def keep_licence(folder: Path, checkpoint: Checkpoint | None, place: Path) -> None:
    """Puts a card into the folder of saved weights if they are made of released ones, so that the licence stays known.

    Args:
        folder: of the new weights.
        checkpoint: what they were made of, if it is known.
        place: where the folder goes; a card that stands there stays, and gets the licence if it does not name it.
    """
    if checkpoint is None or not is_released(checkpoint):
        return
    standing = place / "README.md"
    if standing.is_file():
        words = standing.read_text(encoding="utf-8")
        if LICENCE_NAME not in words:
            licence = DEEPSEEK.format(link=DEEPSEEK_LICENCE)
            (folder / "README.md").write_text(f"{words.rstrip()}\n{licence}", encoding="utf-8")
        for file in checkpoint.folder.glob("LICENSE*"):
            shutil.copy(file, folder)
        return
    text = f"Saved with janusflow; the weights began as those of `{checkpoint.folder.name}`."
    write_card(folder, checkpoint, title=place.name, text=text)


def write_card(folder: Path, checkpoint: Checkpoint | None, *, title: str, text: str, licence: str = "other") -> None:
    """Puts a model card, and the licence files of the source, into a folder of weights.

    Released weights, and what is made of them, get the DeepSeek Model License. Otherwise a card of the source's folder
    stays the card, as does one that names that licence already, unless it is one of ours about that folder.

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
    released = is_released(checkpoint)
    old = None if source is None or not (source / "README.md").is_file() else source / "README.md"
    stays = checkpoint is not None and (checkpoint.layout not in RELEASED or not released)
    words = "" if old is None else old.read_text(encoding="utf-8")
    if old is not None and any(beginning in words for beginning in OURS):
        declared = DECLARED.match(words)
        licence = declared[1] if declared else licence
    elif old is not None and stays and (not released or LICENCE_NAME in words):
        shutil.copy(old, folder)
        return
    extra = ""
    if released:
        licence, extra = "other", f"{LICENCE_FIELD}\nlicense_link: {DEEPSEEK_LICENCE}\n"
        text = text.rstrip() + "\n" + DEEPSEEK.format(link=DEEPSEEK_LICENCE).rstrip()
    janus = checkpoint is not None and checkpoint.family == "Janus"
    library = "transformers" if janus else "janusflow"
    card = HEADER.format(licence=licence, extra=extra, library=library, title=title, text=text)
    (folder / "README.md").write_text(card, encoding="utf-8")
