"""Read folders of pictures: with a .txt file for each, or with metadata files that list the pictures and their data.

Metadata files are `metadata.jsonl`, `.json`, `.csv` or `.parquet`, at any depth. Their columns are `file_name`
or `file_names`, relative to the metadata file's folder, and the columns that every source accepts. If the folders that
contain pictures are named after splits (`train`, `validation`, `test`, ...), one split is read. These names and
suffixes are case-insensitive. Hidden files and folders are not read.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from janusflow.arguments import counted
from janusflow.data.jsonlines import FAULT, FOLDER, NAME, read_lines

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")
METADATA = ("metadata.jsonl", "metadata.json", "metadata.csv", "metadata.parquet")
COLUMNS = {"file_name": "image", "file_names": "images"}
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
KNOWN = {folder: name for name, folders in SPLITS.items() for folder in folders}
ALL, OUTSIDE = "all", "outside the splits"


class Listed(list[dict[str, Any]]):
    """Rows in memory, with the interface of `JsonLines`, whose rows are on disk."""

    def select(self, indices: Sequence[int]) -> Listed:
        """Select rows by index."""
        return Listed(self[index] for index in indices)


def visible_files(path: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, except hidden files and files in hidden folders."""
    found = [file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(file for file in found if not file.is_dir())


def is_folder_of_pictures(path: Path) -> bool:
    """Return whether a folder contains metadata files, or at least one picture with a .txt file."""
    files = visible_files(path)
    texts = _texts(files)
    return any(_is_metadata(file) or (_is_picture(file) and file.with_suffix("") in texts) for file in files)


def read_folder(path: Path, split: str) -> Listed:
    """Read the rows of a folder: those of its metadata files, then other pictures that have a .txt file.

    Without metadata files, all pictures are read.

    Args:
        path: absolute path of the folder.
        split: a split of the folder, or "all"; "train" for a folder without splits.

    Raises:
        ValueError: if the split does not exist, there are no pictures, or a metadata file cannot be read.
    """
    rows = _read_files(_files(path, split))
    if not rows:
        raise ValueError(f"{path} contains neither a {METADATA[0]} nor pictures, each with a .txt file next to it")
    return Listed(rows)


def unused_files(path: Path, split: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a folder that no row comes from, and why; skip hidden files and those of other splits."""
    files = _files(path, split)
    named = {place for row in _read_files(files) for place in _pictures(row)}
    stems = {place.with_suffix("") for place in named}
    for file in files:
        if _is_metadata(file) or file in named:
            continue
        if _is_picture(file):
            yield file, "not in the metadata"
        elif file.suffix.lower() != ".txt" or file.with_suffix("") not in stems:
            yield file, "not a picture"
    if split.lower() != ALL and _splits(path):
        yield from ((file, OUTSIDE) for file in _outside(path) if _is_picture(file))


def other_splits(path: Path, split: str) -> str:
    """Describe which split of a folder is read and what is not, with record counts; empty if everything is read."""
    wanted, splits = _known(split), _splits(path)
    left = [f"{name!r} ({_size(path, name)})" for name in splits if name != wanted]
    outside = sum(map(_is_picture, _outside(path))) if splits else 0
    left += [f"{counted(outside, 'picture')} {OUTSIDE}"] if outside else []
    if not left or wanted == ALL:
        return ""
    several = len(left) > 1 or outside > 1
    return f"read split {wanted!r}; {' and '.join(left)} {'are' if several else 'is'} left out"


def _size(path: Path, split: str) -> str:
    """Return how many records a split has, in words."""
    try:
        return counted(len(read_folder(path, split)), "record")
    except ValueError:
        return "which cannot be read"


def _known(split: str) -> str:
    return KNOWN.get(split.lower(), split.lower())


def _splits(path: Path) -> dict[str, list[Path]]:
    """Return the folders of each split, by the split's name.

    A folder has splits if all its folders with pictures or metadata are named after splits and no picture is outside
    them, or if two of them are named after different splits. It has none if there is metadata above them.
    """
    kept = [file.relative_to(path) for file in visible_files(path) if _is_metadata(file) or _is_picture(file)]
    tops = sorted({file.parts[0] for file in kept if len(file.parts) > 1})
    splits = defaultdict(list)
    for top in tops:
        if top.lower() in KNOWN:
            splits[KNOWN[top.lower()]].append(path / top)
    above = any(len(file.parts) == 1 and _is_metadata(file) for file in kept)
    loose = any(len(file.parts) == 1 for file in kept)
    whole = sum(map(len, splits.values())) == len(tops) and not loose
    return dict(splits) if not above and (whole or len(splits) > 1) else {}


def _outside(path: Path) -> list[Path]:
    """Return the files of a folder with splits that are in none of them."""
    return [file for file in visible_files(path) if file.relative_to(path).parts[0].lower() not in KNOWN]


def _files(path: Path, split: str) -> list[Path]:
    """Return the files of a split; all files if there are no splits or all are wanted."""
    splits, wanted = _splits(path), _known(split)
    if wanted == ALL or (not splits and wanted == "train"):
        return visible_files(path)
    if not splits:
        raise ValueError(f"{path} is one set of pictures, without splits; split is {split!r}")
    if wanted not in splits:
        raise ValueError(f"{path} has no split {split!r}; its splits are {', '.join(splits)}: give split=NAME")
    return [file for folder in splits[wanted] for file in visible_files(folder)]


def _is_metadata(file: Path) -> bool:
    return file.name.lower() in METADATA


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES


def _texts(files: Sequence[Path]) -> dict[Path, Path]:
    """Return the .txt files by their paths without the suffix."""
    return {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}


def _read_files(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the rows of some files, as `read_folder` does."""
    metadata, texts = [file for file in files if _is_metadata(file)], _texts(files)
    rows = [row for file in metadata for row in _rows(file)]
    named = {place for row in rows for place in _pictures(row)}
    pictures = [(file, texts.get(file.with_suffix(""))) for file in files if _is_picture(file) and file not in named]
    return rows + [_captioned(file, text) for file, text in pictures if not metadata or text is not None]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metadata file, with pictures in the columns that every source uses."""
    try:
        found = list(_read(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    good = [row for row in found if FAULT not in row]
    columns = list(dict.fromkeys(key for row in good for key in row if key not in (FOLDER, NAME)))
    if good and not any(name in columns for name in COLUMNS):
        raise ValueError(f"{file} has no column file_name; its columns are {', '.join(columns)}")
    for number, row in enumerate(found, 1):
        images = {COLUMNS[key]: row[key] for key in COLUMNS if row.get(key)}
        others = {key: value for key, value in row.items() if key not in (*COLUMNS, *COLUMNS.values())}
        if FAULT in row or images:
            yield {NAME: f"{file}:{number}", FOLDER: str(file.parent), **others, **images}
        else:
            yield {FAULT: f"{file}: row {number} has no file_name", NAME: f"{file}:{number}"}


def _read(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix.lower() == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for row in csv.DictReader(opened, strict=True):
                extra = None in row or None in row.values()
                where = f"{file}: {row.get('file_name')}"
                yield {FAULT: f"{where} has more or fewer cells than the first line"} if extra else row
    elif file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(file).to_pylist()
    else:
        yield from read_lines([file])


def _pictures(row: dict[str, Any]) -> list[Path]:
    """Return the paths of a row's pictures."""
    given = row.get("images", row.get("image"))
    listed = given if isinstance(given, list) else [given]
    return [Path(row.get(FOLDER, ""), place) for place in listed if isinstance(place, str)]


def _captioned(picture: Path, text: Path | None) -> dict[str, Any]:
    """Return the row of a picture, with its caption if it has one, or with a fault if that cannot be read."""
    try:
        caption = "" if text is None else text.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return {FAULT: f"{text} cannot be read as UTF-8 text: {error}", NAME: str(picture)}
    return {"image": str(picture), NAME: str(picture), "text": caption}
