"""The subjects of emoji: labels, synonyms, keywords, groups, skin tones, genders and roles, read from emojibase.

The id of a subject is its code points in lower-case hexadecimal with hyphens, without variation selectors (`1f98a`).
The id of an icon that is not an emoji contains its name (`ph-acorn`).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
COLORS = (
    "red",
    "pink",
    "orange",
    "yellow",
    "green",
    "blue",
    "light blue",
    "purple",
    "brown",
    "black",
    "grey",
    "white",
)
SHAPES = ("heart", "circle", "square")
GENDERS = {"man": "man", "men": "man", "woman": "woman", "women": "woman"}
HAIR = ("beard", "red hair", "curly hair", "white hair", "bald", "blond hair")  # not roles
ICONS = "icons"  # group of icons that are not emoji
PEOPLE = "person"  # prefix of the subgroups of people
VARIATION = "fe0f"
FACING = ": facing right"

_GENDERED = re.compile(r"(man|men|woman|women):? (.+)")
_COLORED = re.compile(rf"({'|'.join(sorted(COLORS, key=len, reverse=True))}) (?:large )?(.+)")
_UNLIKE = re.compile(r"\b(black|white|emoji|symbol|sign|component|modifier)\b")


@dataclass(frozen=True)
class Subject:
    """What a picture shows.

    Attributes:
        id: id of the subject, see the module's docstring.
        label: emojibase's label, without skin tone and direction ("man firefighter").
        synonyms: other names of the subject, such as Unicode's ("fox face" for "fox").
        keywords: words that describe the subject.
        group, subgroup: group and subgroup in Unicode's list ("animals-nature", "animal-mammal").
        tones: skin tones, one per person; () if it has none or is yellow.
        toned: whether pictures of it with skin tones exist.
        gender: "man" or "woman", or "".
        role: what people of both genders do or are ("firefighter"), or "".
        color: color that its label begins with, or "".
        shape: "heart", "circle" or "square" if it comes in many colors, or "".
        right: whether it faces right, unlike the subject without a direction.
    """

    id: str
    label: str
    synonyms: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    group: str = ""
    subgroup: str = ""
    tones: tuple[str, ...] = ()
    toned: bool = False
    gender: str = ""
    role: str = ""
    color: str = ""
    shape: str = ""
    right: bool = False

    @property
    def is_person(self) -> bool:
        """Whether it is one or several people, not only a face or a hand."""
        return self.subgroup.startswith(PEOPLE) and self.subgroup != "person-symbol"

    @property
    def is_country(self) -> bool:
        """Whether it is the flag of a country or region."""
        return self.subgroup in ("country-flag", "subdivision-flag")


def canonical(code: str) -> str:
    """Return code points in the form of subject ids.

    Example:
        >>> canonical("2764-FE0F")
        '2764'
    """
    return "-".join(part for part in code.lower().split("-") if part != VARIATION)


def slug(label: str) -> str:
    """Return a label in the form that icon sets use in file names.

    Example:
        >>> slug("Côte d’Ivoire"), slug("keycap: 1")
        ('côte-divoire', 'keycap-1')
    """
    return re.sub(r"[\W_]+", "-", re.sub("[’'“”!.]", "", label.lower())).strip("-")


def read_names(file: Path) -> dict[str, Subject]:
    """Read the subjects of an emojibase-data package, by id.

    Raises:
        ValueError: if the file is not such a package.
    """
    try:
        with tarfile.open(file) as tar:
            data, messages, unicode = (
                _json(tar, name) for name in ("en/data.json", "en/messages.json", "meta/unicode-names.json")
            )
        groups = [{one["order"]: one["key"] for one in messages[kind]} for kind in ("groups", "subgroups")]
        named = {canonical(code): name.lower() for code, name in unicode.items()}
        return {subject.id: subject for row in data for subject in _subjects(row, groups, named)}
    except (KeyError, TypeError, tarfile.TarError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not a package of emojibase-data: {error}") from error


def _json(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.extractfile(f"package/{name}")
    if member is None:
        raise KeyError(name)
    return json.load(member)


def _subjects(row: dict[str, Any], groups: list[dict[int, str]], named: dict[str, str]) -> Iterator[Subject]:
    """Yield a subject, then the same subject in every skin tone."""
    if "group" not in row:  # the letters that flags are made of
        return
    label = row["label"]
    plain = label.removesuffix(FACING)
    key, skins = canonical(row["hexcode"]), row.get("skins", [])
    gender, role = _gender_and_role(plain)
    color, shape = _color_and_shape(plain)
    other = named.get(key, "")
    other = "" if _UNLIKE.search(other) or other == plain.lower() else other
    subject = Subject(
        key,
        plain,
        (other,) if other else (),
        tuple(tag for tag in row.get("tags", []) if tag.isascii()),
        groups[0][row["group"]],
        groups[1][row["subgroup"]],
        toned=bool(skins),
        gender=gender,
        role=role,
        color=color,
        shape=shape,
        right=plain != label,
    )
    yield subject
    for skin in skins:
        tone = skin["tone"]
        tones = tuple(TONES[one - 1] for one in (tone if isinstance(tone, list) else [tone]))
        yield replace(subject, id=canonical(skin["hexcode"]), tones=tones)


def _gender_and_role(label: str) -> tuple[str, str]:
    found = _GENDERED.fullmatch(label)
    if found is None or found[2] in HAIR or found[2].startswith("and "):
        return "", ""
    return GENDERS[found[1]], found[2]


def _color_and_shape(label: str) -> tuple[str, str]:
    found = _COLORED.fullmatch(label)
    if found is None:
        return "", ""
    return found[1], found[2] if found[2] in SHAPES else ""


def roles(subjects: dict[str, Subject]) -> list[str]:
    """Return the roles that both genders have, in alphabetical order."""
    genders: dict[str, set[str]] = {}
    for subject in subjects.values():
        if subject.role:
            genders.setdefault(subject.role, set()).add(subject.gender)
    return sorted(role for role, found in genders.items() if len(found) == 2)
