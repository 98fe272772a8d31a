"""Suggest the setting that an unknown key of a recipe may stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import get_args, get_origin, get_type_hints


def meant(config: type, place: str, kinds: Mapping[str, type] | None = None) -> str:
    """Suggest a setting with nearly the same name, with the same name elsewhere, or with these initials.

    Args:
        config: the dataclass of the whole recipe.
        kinds: dataclasses of list items, chosen by the items' own `kind`, by their dotted names.

    Returns:
        The end of a sentence, such as "; did you mean optimizer.learning_rate?"; empty if no setting is near.
    """
    above, _, last = place.lower().rpartition(".")
    known = _settings(config, place.split("."), kinds or {})
    siblings = [name for name in known if name.rpartition(".")[0] == above]
    for names, like in ((known, 1.0), (siblings, 0.6), (known, 0.75)):
        spellings = _spellings(names)
        if near := get_close_matches(last, [*spellings], n=1, cutoff=like):
            return f"; did you mean {spellings[near[0]]}?"
    begun = [name for name in siblings if name.rpartition(".")[2].startswith(last)]
    return f"; did you mean {begun[0]}?" if begun else ""


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """Return the spellings accepted for each setting: its last word, its whole name with underscores, its initials."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.count(".")):
        leaf = name.rpartition(".")[2]
        initials = "".join(word[0] for word in leaf.split("_"))
        for spelling in (leaf, name.replace(".", "_"), *([initials] if len(initials) > 1 else [])):
            found.setdefault(spelling, name)
    return found


def _settings(part: type, place: Sequence[str], kinds: Mapping[str, type], before: str = "") -> list[str]:
    """Return the dotted names of all settings; in lists, those of the item that `place` is in, or of the first item."""
    names, hints = [], get_type_hints(part)
    for each in fields(part):
        name, hint = f"{before}{each.name}", hints[each.name]
        inside = next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
        if not isinstance(inside, type):
            names.append(name)
            continue
        if get_origin(hint) is list:
            above = name.split(".")
            here = list(place[: len(above)]) == above and len(place) > len(above) + 1
            name = f"{name}.{place[len(above)] if here else 0}"
        names += _settings(kinds.get(name, inside), place, kinds, f"{name}.")
    return names
