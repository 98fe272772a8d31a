"""Open packages: each reader yields drawings of subjects that `names.py` knows, or of its own subjects.

A drawing still consists of vectors, or of the package's pixels; `render.py` makes pictures of both.
"""

from __future__ import annotations

import html
import io
import json
import lzma
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.pictograms.names import ICONS, Subject, canonical, slug

WEIGHTS = ("thin", "light", "regular", "bold", "fill", "duotone")
LARGEST_CLIP = 150_000  # characters of an SVG: larger ones take seconds
UNKNOWN, BRAND = "no emoji with a group in emojibase", "a brand's logo"
COUNTRY, UNSEEN = "a country's flag, which is Google's", "its color is not visible in black"
DEB_HEADER = 60  # bytes before each member

Names = Mapping[str, Subject]
Reader = Callable[[Path, Names, Counter[str]], Iterator["Drawing"]]


@dataclass(frozen=True)
class Drawing:
    """A subject as drawn in a package.

    Attributes:
        subject: what it shows.
        art: an SVG document, or the bytes of a raster file.
        weight: weight of Phosphor's lines, or "".
    """

    subject: Subject
    art: str | bytes
    weight: str = ""


def read_drawings(reader: str, file: Path, names: Names, skipped: Counter[str]) -> list[Drawing]:
    """Read the drawings of a package, only one per subject and weight.

    Args:
        reader: key of `READERS`.
        file: file of the package.
        names: subjects of emoji by id.
        skipped: counter of what is left out, by reason.

    Raises:
        ValueError: if the package is damaged or has another format.
    """
    found: dict[tuple[str, str], Drawing] = {}
    try:
        for drawing in READERS[reader](file, names, skipped):
            key = (drawing.subject.id, drawing.weight)
            skipped["a second drawing of the same"] += key in found
            found.setdefault(key, drawing)
    except (KeyError, TypeError, EOFError, tarfile.TarError, lzma.LZMAError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} cannot be read as {reader}: {type(error).__name__}: {error}") from error
    return list(found.values())


def iconify(file: Path, names: Names, skipped: Counter[str]) -> Iterator[Drawing]:
    """Read an Iconify set of emoji by the code points in `chars.json`, or by names if there is no such file."""
    icons, chars = _icons(file), _member(file, "chars.json")
    if not chars:
        slugs = {slug(subject_name(subject)): code for code, subject in reversed(list(names.items()))}
        chars = {}
        for name in icons["icons"]:
            today = SINCE_RENAMED.get(name) or _TONE_FIRST.sub(r"\1-\3-\2", name.removeprefix("flag-for-"))
            chars[slugs.get(today, name)] = name
    for code, name in chars.items():
        subject = names.get(canonical(code))
        if subject is None:
            skipped[UNKNOWN] += 1
        elif subject.shape and icons["prefix"].endswith("high-contrast"):
            skipped[UNSEEN] += 1
        elif name in icons["icons"]:
            yield Drawing(subject, svg(icons, name))


def hexadecimal(file: Path, names: Names, skipped: Counter[str]) -> Iterator[Drawing]:
    """Read raster files named by code points; flags of countries are left out."""
    for code, data in _rasters(file, re.compile(r"package/assets/(.+)\.webp")):
        subject = names.get(canonical(code))
        if subject is None or subject.is_country:
            skipped[UNKNOWN if subject is None else COUNTRY] += 1
        else:
            yield Drawing(subject, data)


def flags(file: Path, names: Names, skipped: Counter[str]) -> Iterator[Drawing]:
    """Read only the flags of countries from emoji-datasource's 64 px pictures."""
    for code, data in _rasters(file, re.compile(r"package/img/google/64/(.+)\.png")):
        subject = names.get(canonical(code))
        if subject is not None and subject.is_country:
            yield Drawing(subject, data)


def phosphor(file: Path, names: Names, skipped: Counter[str]) -> Iterator[Drawing]:
    """Read Phosphor's icons, each in six weights; logos, which are trademarks of others, are left out."""
    icons = _icons(file)
    for name, icon in icons["icons"].items():
        base, _, last = name.rpartition("-")
        stem, weight = (base, last) if last in WEIGHTS else (name, "regular")
        if icon.get("hidden"):
            skipped["hidden in the set"] += 1
        elif stem.endswith("-logo") or "-logo-" in stem:
            skipped[BRAND] += 1
        else:
            subject = Subject(f"ph-{stem}", stem.replace("-", " "), group=ICONS, subgroup="icon")
            yield Drawing(subject, svg(icons, name), weight)


def clipart(file: Path, names: Names, skipped: Counter[str]) -> Iterator[Drawing]:
    """Read Open Clip Art's public-domain files on everyday subjects, if the title names one."""
    files = [(path, data.decode("utf-8", errors="replace")) for path, data in _deb(file, CLIPS)]
    titles = {path: _title(text) for path, text in files}
    often = Counter(titles.values())
    for path, text in files:
        title = titles[path]
        if not title or often[title] > MOST_OFTEN:
            skipped["without a title of its own"] += 1
        elif path.split("/")[0] not in EVERYDAY or "/games/" in path:
            skipped["not an everyday subject"] += 1
        elif len(text) > LARGEST_CLIP:
            skipped[f"more than {LARGEST_CLIP:,} characters"] += 1
        elif "publicdomain" not in text.lower():
            skipped["does not state the public domain"] += 1
        elif not (framed := framed_clip(text)):
            skipped["without a usable size"] += 1
        else:
            words = tuple(dict.fromkeys(html.unescape(word).strip().lower() for word in _WORD.findall(text)))
            keywords = tuple(
                word for word in words if re.fullmatch("[a-z][a-z -]{2,20}", word) and word not in NOT_WORDS
            )
            yield Drawing(Subject(f"oc-{slug(path)}", title, (), keywords, "clip art", path.split("/")[0]), framed)


READERS: dict[str, Reader] = {
    "iconify": iconify,
    "hexadecimal": hexadecimal,
    "flags": flags,
    "phosphor": phosphor,
    "clipart": clipart,
}
SINCE_RENAMED = {
    "direct-hit": "bullseye",
    "dizzy-face": "face-with-crossed-out-eyes",
    "exclamation-mark": "red-exclamation-mark",
    "hugging-face": "smiling-face-with-open-hands",
    "pouting-face": "enraged-face",
    "question-mark": "red-question-mark",
}
_TONE_FIRST = re.compile(r"(\w+)-([\w-]+-skin-tone)-(blond-hair)")
NOT_WORDS = (
    "hash",
    "svg",
    "image",
    "clip art",
    "clipart",
    "unchecked",
    "unsorted",
    "contour",
    "outline",
    "color",
    "png",
)
MOST_OFTEN = 12  # most files that may share a title; more frequent titles are names of collections
EVERYDAY = (
    *("animals", "buildings", "containers", "decorations", "education", "electronics", "food", "office", "people"),
    *("plants", "recreation", "science", "tools", "transportation"),
)
CLIPS = re.compile(r"\./usr/share/openclipart/svg/(.+)\.svg")
_WORD = re.compile(r"<rdf:li>([^<]+)</rdf:li>")
_TITLE = re.compile(r"<dc:title>([^<]+)</dc:title>")
_ROOT = re.compile(r"<svg\b[^>]*>")


def subject_name(subject: Subject) -> str:
    """Return a subject's label with its skin tones, in the form that icon sets use."""
    right = " facing right" if subject.right else ""
    return " ".join([subject.label + right, *(f"{tone} skin tone" for tone in subject.tones)])


def svg(icons: Mapping[str, Any], name: str) -> str:
    """Return an icon of an Iconify set as an SVG document."""
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return (
        f'<svg {spaces} viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def framed_clip(text: str) -> str:
    """Give the root of any program's SVG document a `viewBox` and no other size; return "" if it has neither."""
    found = _ROOT.search(text)
    if found is None:
        return ""
    root = found[0]
    sizes = {side: re.search(rf'\s{side}="\s*([0-9.]+)\s*(\w*|%)"', root) for side in ("width", "height")}
    box = re.search(r'\sviewBox="([^"]+)"', root)
    if box is None:
        values = [float(size[1]) * UNITS.get(size[2], 0) if size else 0 for size in sizes.values()]
        if not all(values):
            return ""
        frame = f"0 0 {values[0]:g} {values[1]:g}"
    else:
        frame = box[1]
    root = re.sub(r'\s(width|height|viewBox|x|y|preserveAspectRatio)="[^"]*"', "", root)
    return text[: found.start()] + root.replace("<svg", f'<svg viewBox="{frame}"', 1) + text[found.end() :]


UNITS = {"": 1.0, "px": 1.0, "pt": 1.25, "mm": 3.543307, "cm": 35.43307, "in": 90.0}  # pixels, as Inkscape had them


def _title(text: str) -> str:
    """Return the title of a clip-art file in plain words, or "" if it is not meaningful."""
    found = _TITLE.search(text)
    words = html.unescape(found[1]) if found else ""
    words = re.sub(r"[_.]+|\s-\s", " ", words)
    words = re.sub(r"\b(\d+|bw|svg|clip ?art|icon|by|vector|remix|ver|version)\b.*$", "", words, flags=re.IGNORECASE)
    words = " ".join(words.split()).strip(" -,:").lower()
    words = re.sub(r"^(an?|the) ", "", words)
    return words if re.fullmatch(r"[a-z][a-z' -]{2,39}", words) else ""


def _icons(file: Path) -> Any:
    icons = _member(file, "icons.json")
    if icons is None:
        raise KeyError("icons.json")
    return icons


def _member(file: Path, name: str) -> Any:
    with tarfile.open(file) as tar:
        try:
            member = tar.extractfile(f"package/{name}")
        except KeyError:
            return None
        return None if member is None else json.load(member)


def _rasters(file: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(file) as tar:
        yield from _matching(tar, pattern)


def _deb(file: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Yield files of a Debian package, an `ar` archive that has one member with a tar of all files."""
    data = file.read_bytes()
    place = len(b"!<arch>\n")
    while place + DEB_HEADER <= len(data):
        name, size = data[place : place + 16].decode().strip(" /"), int(data[place + 48 : place + 58])
        place += DEB_HEADER
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(data[place : place + size])) as tar:
                yield from _matching(tar, pattern)
            return
        place += size + size % 2
    raise KeyError("data.tar")


def _matching(tar: tarfile.TarFile, pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        found = pattern.fullmatch(member.name)
        if found and member.isfile() and (opened := tar.extractfile(member)) is not None:
            yield found[1], opened.read()
