"""Folders of pictures: with a .txt file for each, or with metadata files that name pictures and what belongs to them.

Metadata files are `metadata.jsonl`, `.json`, `.csv` or `.parquet`, in any folders below; their columns are `file_name`
or `file_names`, relative to their own folder, and those that every source knows. Where the folders that hold pictures
are named after splits (`train`, `validation`, `test`, ...), one of them is taken.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
ALL = "all"  # splits


class Listed(Sequence[dict[str, Any]]):
    """Rows in memory, as `JsonLines` has them on disk."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def select(self, indices: Sequence[int]) -> Listed:
        """Only those rows."""
        return Listed([self.rows[index] for index in indices])


def is_folder_of_pictures(path: Path) -> bool:
    """Whether a folder has metadata files, or pictures with a .txt file for at least one."""
    files = [file for file in path.rglob("*") if file.name in METADATA or file.suffix.lower() in (*PICTURES, ".txt")]
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in PICTURES}
    return any(file.name in METADATA or (file.suffix == ".txt" and file.with_suffix("") in pictures) for file in files)


def read_folder(path: Path, split: str) -> Listed:
    """The rows of a folder: those of its metadata files, then the pictures that they do not name and that have a .txt
    file; without metadata files all pictures.

    Args:
        path: absolute.
        split: of a folder with splits, or "all"; "train" otherwise.

    Raises:
        ValueError: if there is no such split, no picture, or a metadata file cannot be read.
    """
    path = _split(path, split)
    metadata = [file for file in sorted(path.rglob("*")) if file.name in METADATA]
    rows = [row for file in metadata for row in _rows(file)]
    named = {place for row in rows for place in _pictures(row)}
    pictures = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PICTURES and file not in named]
    rows += [_captioned(file) for file in pictures if not metadata or file.with_suffix(".txt").is_file()]
    if not rows:
        raise ValueError(f"{path} holds neither a {METADATA[0]} nor pictures with a .txt file beside each")
    return Listed(rows)


def unused_files(path: Path, split: str) -> Iterator[tuple[Path, str]]:
    """Files of a folder that no row comes from, and why; hidden ones do not count."""
    path = _split(path, split)
    rows = read_folder(path, ALL).rows
    named = {place for row in rows for place in _pictures(row)}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_dir() or hidden or file.name in METADATA or file in named:
            continue
        if file.suffix.lower() in PICTURES:
            yield file, "not in the metadata"
        elif file.suffix != ".txt" or not any(place.with_suffix("") == file.with_suffix("") for place in named):
            yield file, "not a picture"


def other_splits(path: Path, split: str) -> str:
    """Which split of a folder is read and which are not, with their numbers of records; empty where all of it is."""
    wanted = KNOWN.get(split, split)
    others = [(name, folder) for name, folder in _splits(path).items() if name != wanted]
    if not others or split == ALL:
        return ""
    told = [f"{name!r} ({_size(folder)})" for name, folder in others]
    return f"read split {wanted!r}; {' and '.join(told)} {'is' if len(told) == 1 else 'are'} left out"


def _size(folder: Path) -> str:
    """How many records a folder has, in words."""
    try:
        size = len(read_folder(folder, ALL))
    except ValueError:
        return "which cannot be read"
    return f"{size:,} record{'' if size == 1 else 's'}"


def _splits(path: Path) -> dict[str, Path]:
    """The folders of a folder's splits by name; none where it has others too."""
    kept = [file for file in path.rglob("*") if file.name in METADATA or file.suffix.lower() in PICTURES]
    tops = sorted({file.relative_to(path).parts[0] for file in kept})
    splits = {KNOWN[top]: path / top for top in tops if top in KNOWN and (path / top).is_dir()}
    return splits if len(splits) == len(tops) else {}


def _split(path: Path, split: str) -> Path:
    """The folder of a split, or the folder itself where there are none or all are wanted.

    Raises:
        ValueError: if there are others only.
    """
    if split == ALL:
        return path
    splits = _splits(path)
    if not splits:
        if split != "train":
            raise ValueError(f"{path} is one set of pictures, without splits; split is {split!r}")
        return path
    wanted = KNOWN.get(split, split)
    if wanted not in splits:
        raise ValueError(f"{path} has no split {split!r}; its splits are {', '.join(splits)}: give split=NAME")
    return splits[wanted]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file, pictures under the name that every source has for them."""
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
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for row in csv.DictReader(opened, strict=True):
                extra = None in row or None in row.values()
                where = f"{file}: {row.get('file_name')}"
                yield {FAULT: f"{where} has more or fewer cells than the first line"} if extra else row
    elif file.suffix == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(file).to_pylist()
    else:
        yield from read_lines([file])


def _pictures(row: dict[str, Any]) -> list[Path]:
    """Where the pictures of a row are."""
    given = row.get("images", row.get("image"))
    listed = given if isinstance(given, list) else [given]
    return [Path(row.get(FOLDER, ""), place) for place in listed if isinstance(place, str)]


def _captioned(picture: Path) -> dict[str, Any]:
    """A picture and the text of its .txt file, if there is one; or the fault of one that cannot be read."""
    row, text = {"image": str(picture), NAME: str(picture)}, picture.with_suffix(".txt")
    try:
        return {**row, "text": text.read_text(encoding="utf-8-sig") if text.is_file() else ""}
    except (OSError, UnicodeDecodeError) as error:
        return {FAULT: f"{text} cannot be read as UTF-8 text: {error}", NAME: str(picture)}
