"""Group the members of a WebDataset tar into samples by their names.

As in WebDataset, names that are equal up to the first dot of the file name are one sample (`0001.jpg`, `0001.txt`,
`0001.seg.png`), wherever they are in the tar. But if names with further dots have their own picture and text
(`a.b.jpg`, `a.b.txt`, `a.c.jpg`, `a.c.txt`), or there are only pictures, the name is everything before the last dot,
and these are separate samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

PICTURES = ("jpg", "jpeg", "png", "webp", "img", "image", "gif", "bmp", "tif", "tiff", "jfif", "avif")
TEXTS = ("txt", "text", "caption", "prompt", "content", "json")


def grouped(names: Sequence[str]) -> list[list[int]]:
    """Group names into samples, as indices, in the order of each sample's first; hidden and unknown files are left out.

    A name that occurs twice begins another sample, as in tars that were joined.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    times: dict[str, int] = {}
    latest: dict[str, int] = {}
    for number, name in enumerate(names):
        if not is_known(name):
            continue
        key, seen = key_of(name), times.get(name, 0)
        times[name] = seen + 1
        latest[key] = max(latest.get(key, 0), seen)
        groups.setdefault((key, latest[key]), []).append(number)
    found = []
    for group in groups.values():
        found += _split(group, names)
    return sorted(found)


def _split(group: list[int], names: Sequence[str]) -> list[list[int]]:
    """Split names that are equal up to the first dot into samples."""
    stems: dict[str, list[int]] = {}
    for number in group:
        stems.setdefault(names[number].rpartition(".")[0], []).append(number)
    kinds = {stem: {suffix_of(names[n]) in PICTURES for n in own} for stem, own in stems.items()}
    pairs = any(len(found) == 2 for stem, found in kinds.items() if "." in PurePosixPath(stem).name)
    only_pictures = all(found == {True} for found in kinds.values())
    return list(stems.values()) if pairs or only_pictures else [group]


def fields_of(names: Sequence[str]) -> list[str]:
    """Return the fields of a sample's members, from their names: `jpg`, `txt`, or with further dots `seg.png`."""
    if len({name.rpartition(".")[0] for name in names}) == 1:
        return [suffix_of(name) for name in names]
    return [PurePosixPath(name).name.partition(".")[2].lower() for name in names]


def key_of(name: str) -> str:
    """Return WebDataset's key: the name up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def suffix_of(name: str) -> str:
    return name.rpartition(".")[2].lower()


def is_known(name: str) -> bool:
    file = PurePosixPath(name)
    return not file.name.startswith(".") and "__MACOSX" not in file.parts and suffix_of(name) in (*PICTURES, *TEXTS)
