"""Makes the small packages of this folder from the pinned ones: a few subjects in every style.

usage: python tests/data/pictograms/make.py CACHE   where CACHE is the folder that `janusflow pictograms build` fills
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from janusflow.pictograms.catalogue import NAMES, SOURCES
from janusflow.pictograms.held_out import read_held_out
from janusflow.pictograms.names import Subject, canonical, read_names, slug
from janusflow.pictograms.readers import subject_name

HERE = Path(__file__).parent
THINGS = (
    "fox",
    "pizza",
    "grapes",
    "red apple",
    "green apple",
    "rocket",
    "umbrella",
    "grinning face",
    "alarm clock",
    "waving hand",
)
SHAPES = ("red heart", "blue heart", "orange heart", "blue circle", "green circle", "red square", "blue square")
PEOPLE = ("firefighter", "man firefighter", "woman firefighter", "man elf", "woman elf")
TONES = ("dark",)
FLAGS = ("flag: France", "flag: Germany", "chequered flag")
ICONS = ("acorn", "airplane", "cactus", "apple-logo")
WEIGHTS = ("", "-thin", "-light", "-bold", "-fill", "-duotone")
HELD, RASTERS = 3, 30  # subjects that are held out for each family, and 3D pictures
SIDE = 64  # of 3D pictures


def main(cache: Path) -> None:
    names = read_names(cache / NAMES.file)
    held_out = read_held_out()
    labels = {*THINGS, *SHAPES, *FLAGS}
    people = {*PEOPLE, *(pair.label for pair in held_out.pairs["tone"][:2])}
    wanted = {one.id for one in names.values() if one.label in labels and not one.tones}
    toned = [one for one in names.values() if one.label in people and not one.right]
    wanted |= {one.id for one in toned if not one.tones or set(one.tones) <= {*TONES, *_held(held_out, one)}}
    for family in ("fluent", "noto", "noto-v1"):
        wanted |= {pair.subject for pair in [p for p in held_out.pairs["style"] if p.value == family][:HELD]}
    icons = [*ICONS, *(pair.subject.removeprefix("ph-") for pair in held_out.pairs["tint"][:2])]
    _names(cache / NAMES.file, wanted)
    for source in SOURCES:
        file, folder = cache / source.package.file, HERE / source.package.file.removesuffix(".tgz")
        if source.reader == "iconify":
            slugs = {slug(subject_name(names[one])) for one in wanted}
            _iconify(file, folder, slugs, wanted)
        elif source.reader == "phosphor":
            _iconify(file, folder, {icon + weight for icon in icons for weight in WEIGHTS}, set())
        elif source.reader in ("hexadecimal", "flags"):
            _rasters(file, folder, wanted, only_flags=source.reader == "flags", names=names)


def _held(held_out: Any, subject: Subject) -> set[str]:
    return {pair.value for pair in held_out.pairs["tone"] if pair.subject == subject.label}


def _names(file: Path, wanted: set[str]) -> None:
    with tarfile.open(file) as tar:
        data, messages, unicode = (
            json.loads(_read(tar, name)) for name in ("en/data.json", "en/messages.json", "meta/unicode-names.json")
        )
    rows = []
    for row in data:
        skins = [skin for skin in row.get("skins", []) if canonical(skin["hexcode"]) in wanted]
        if canonical(row["hexcode"]) in wanted or skins:
            rows.append({**row, "skins": skins} if row.get("skins") else row)
    folder = HERE / NAMES.file.removesuffix(".tgz")
    codes = {canonical(row["hexcode"]) for row in rows}
    _write(folder / "en" / "data.json", rows)
    _write(folder / "en" / "messages.json", {key: messages[key] for key in ("groups", "subgroups")})
    _write(
        folder / "meta" / "unicode-names.json",
        {code: name for code, name in unicode.items() if canonical(code) in codes},
    )


def _iconify(file: Path, folder: Path, names: set[str], codes: set[str]) -> None:
    with tarfile.open(file) as tar:
        icons, chars = json.loads(_read(tar, "icons.json")), json.loads(_read(tar, "chars.json"))
    chars = {code: name for code, name in chars.items() if canonical(code) in codes}
    kept = {name: icon for name, icon in icons["icons"].items() if name in {*names, *chars.values()}}
    fields = {key: icons[key] for key in ("prefix", "width", "height")}
    _write(folder / "icons.json", {**fields, "icons": kept})
    _write(folder / "chars.json", chars)


def _rasters(file: Path, folder: Path, wanted: set[str], *, only_flags: bool, names: dict[str, Subject]) -> None:
    number = 0
    with tarfile.open(file) as tar:
        for member in tar:
            code = canonical(Path(member.name).stem)
            subject = names.get(code)
            if subject is None or code not in wanted or (only_flags and ("/64/" not in member.name)):
                continue
            if (only_flags and not subject.is_country) or (not subject.is_country and number >= RASTERS):
                continue
            number += not subject.is_country
            place = folder / Path(member.name).relative_to("package")
            place.parent.mkdir(parents=True, exist_ok=True)
            data = _read(tar, str(Path(member.name).relative_to("package")))
            with Image.open(io.BytesIO(data)) as opened:
                small = opened.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            small.save(place, **({"quality": 80} if place.suffix == ".webp" else {"optimize": True}))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(f"package/{name}")
    assert member is not None
    return member.read()


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
