"""Write model cards: where weights come from, and the licence that released weights and their derivatives keep."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import metadata_save

from janusflow.checkpoint.load import Checkpoint
from janusflow.families import Licence
from janusflow.families.descendants import Descendant, named
from janusflow.folders import read_json

OURS = ("Written by `janusflow convert`", "Saved with janusflow")  # first words of cards that are rewritten each time
OWN_LIBRARY = "janusflow"  # of weights that were trained here
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
CACHED = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots")  # in the path of a folder of the hub's cache


def descendant_of(checkpoint: Checkpoint) -> Descendant | None:
    """Return which of its family's descendants a checkpoint is, as far as its names say."""
    return named(checkpoint.family.descendants, names_of(checkpoint))


def names_of(checkpoint: Checkpoint) -> list[str]:
    """Return the names of a checkpoint: its folder or hub id, then those in its configuration and in its card."""
    folder, card = checkpoint.folder, _fields(_words(checkpoint))
    cached = CACHED.search(str(folder))
    base, raw = card.get("base_model"), read_json(folder / "config.json")
    found = [f"{cached[1]}/{cached[2]}" if cached else folder.resolve().name, raw.get("_name_or_path")]
    found += [raw.get("name_or_path"), card.get("model_name"), *(base if isinstance(base, list) else [base])]
    return [name for name in found if isinstance(name, str)]


def is_released(checkpoint: Checkpoint | None) -> bool:
    """Return whether weights are released ones or derived from them, as far as the folder shows.

    Weights count as released if the card next to them names the licence, or if they are in the released layout and the
    card does not declare another licence. Families whose weights of other layouts are released too (`all_released`)
    need no such layout, unless the card says that the weights were trained here from new ones.
    """
    if checkpoint is None or checkpoint.family.licence is None:
        return False
    text, licence = _words(checkpoint), checkpoint.family.licence
    if licence.title in text or f"license_name: {licence.name}" in text:
        return True
    fields = _fields(text)
    declared = fields.get("license", "other")
    if checkpoint.family.all_released:
        return not (declared == "unknown" or (declared != "other" and fields.get("library_name") == OWN_LIBRARY))
    return checkpoint.layout.released and declared == "other"


def keep_licence(folder: Path, checkpoint: Checkpoint | None, place: Path) -> None:
    """Write a card into the folder of saved weights that are derived from released ones, to keep their licence known.

    Args:
        checkpoint: checkpoint that they were derived from, if it is known.
        place: final path of the folder; an existing card there is kept, and the licence is added if the card lacks it.
    """
    licence = _released_licence(checkpoint)
    if checkpoint is None or licence is None:
        return
    standing = place / "README.md"
    if standing.is_file():
        words = standing.read_text(encoding="utf-8", errors="replace")
        if licence.title not in words:
            (folder / "README.md").write_text(f"{words.rstrip()}\n{_notice(licence)}", encoding="utf-8")
        _copy_licences(folder, checkpoint)
        return
    text = f"Saved with janusflow; the weights are derived from `{checkpoint.folder.name}`."
    write_card(folder, checkpoint, title=place.name, text=text)


def keep_card(folder: Path, words: str, checkpoint: Checkpoint | None, *, licence: str | None = None) -> None:
    """Write an existing card into a folder of weights that replace those it describes.

    The licence of released weights is added if the card lacks it.

    Args:
        words: text of the card.
        checkpoint: checkpoint that the weights were derived from, if it is known.
        licence: licence of your own weights, in the hub's spelling; by default, the one that the card declares.
    """
    theirs = _released_licence(checkpoint)
    if theirs is not None and theirs.title not in words:
        words = f"{words.rstrip()}\n{_notice(theirs)}"
    (folder / "README.md").write_text(words, encoding="utf-8")
    if licence is not None and theirs is None:
        metadata_save(folder / "README.md", {**_fields(words), "license": licence})


def write_card(
    folder: Path, checkpoint: Checkpoint | None, *, title: str, text: str, licence: str | None = None
) -> None:
    """Write a model card into a folder of weights, and copy the licence files of the source.

    Released weights and their derivatives get the licence of their family. The source's own card is copied if the
    weights are not released or if it names that licence, except for cards that we wrote.

    Args:
        checkpoint: checkpoint that they were derived from, if it is known.
        text: first paragraph of the card.
        licence: licence of your own weights, in the hub's spelling; by default, the one that their card declares, or
            else "other".
    """
    source = None if checkpoint is None else checkpoint.folder
    _copy_licences(folder, checkpoint)
    theirs = _released_licence(checkpoint)
    old = None if source is None or not (source / "README.md").is_file() else source / "README.md"
    stays = checkpoint is not None and (theirs is None or not checkpoint.layout.released)
    words = "" if old is None else old.read_text(encoding="utf-8", errors="replace")
    if old is not None and any(beginning in words for beginning in OURS):
        licence = licence or str(_fields(words).get("license", "other"))
    elif old is not None and stays and (theirs is None or theirs.title in words):
        shutil.copy(old, folder)
        if licence is not None and theirs is None:
            metadata_save(folder / "README.md", {**_fields(words), "license": licence})
        return
    library = OWN_LIBRARY if checkpoint is None else checkpoint.family.library
    _write(folder, title, text, {"license": licence or "other", "library_name": library, **_line(checkpoint)}, theirs)


def write_trained_card(
    folder: Path, source: Checkpoint | None, *, title: str, text: str, base_model: str | None, adapter: bool = False
) -> None:
    """Write the card of newly trained weights, with the licence of the weights that they were trained from.

    Args:
        source: the checkpoint that they were trained from; None for a new network.
        text: Markdown below the title.
        base_model: the name of the source, as it was given.
        adapter: whether the folder contains adapters and not a whole model.
    """
    _copy_licences(folder, source)
    declared = {} if source is None else _fields(_words(source))
    fields: dict[str, Any] = {"license": "unknown", "library_name": "peft" if adapter else OWN_LIBRARY}
    fields |= {name: value for name, value in declared.items() if name in ("license", "license_name", "license_link")}
    if base := _hub_id(base_model, source, declared):
        fields |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    fields |= _line(source)
    _write(folder, title, text, fields, _released_licence(source), tags=["lora"] if adapter else [])


def _write(
    folder: Path, title: str, text: str, fields: dict[str, Any], theirs: Licence | None, tags: list[str] | None = None
) -> None:
    if theirs is not None:
        fields = {**fields, "license": "other", "license_name": theirs.name, "license_link": theirs.link}
        text = text.rstrip() + "\n" + _notice(theirs).rstrip()
    data = ModelCardData(
        **fields, pipeline_tag="image-text-to-text", tags=["janusflow", "text-to-image", *(tags or [])]
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{text}\n", encoding="utf-8")


def _line(checkpoint: Checkpoint | None) -> dict[str, str]:
    """Return the field by which `names_of` knows a descendant again when the folder has another name."""
    found = None if checkpoint is None else descendant_of(checkpoint)
    return {} if found is None else {"model_name": found.name}


def _released_licence(checkpoint: Checkpoint | None) -> Licence | None:
    return checkpoint.family.licence if checkpoint is not None and is_released(checkpoint) else None


def _notice(licence: Licence) -> str:
    return f"\n{licence.notice}\n[{licence.title}]({licence.link}).\n"


def _copy_licences(folder: Path, source: Checkpoint | None) -> None:
    for file in [] if source is None else source.folder.glob("LICENSE*"):
        if file.is_file():
            shutil.copy(file, folder)


def _words(checkpoint: Checkpoint) -> str:
    card = checkpoint.folder / "README.md"
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def _fields(card: str) -> dict[str, Any]:
    """Return the front matter of a card; an empty dictionary if there is none or it is damaged."""
    found = FRONT_MATTER.match(card)
    try:
        fields = yaml.safe_load(found[1]) if found else {}
    except (yaml.YAMLError, ValueError, RecursionError):  # such as an impossible date
        return {}
    return fields if isinstance(fields, dict) else {}


def _hub_id(name: str | None, source: Checkpoint | None, declared: dict[str, Any]) -> str | None:
    """Return the hub id of a model: the given name, the id of a folder in the hub's cache, or the card's base model.

    The hub rejects cards whose `base_model` is not a hub id, such as the name of a local folder.
    """
    if name is not None and name.count("/") == 1 and not Path(name).expanduser().exists():
        return name
    if source is not None and (cached := CACHED.search(str(source.folder))):
        return f"{cached[1]}/{cached[2]}"
    base = declared.get("base_model")
    return base if isinstance(base, str) else None
