"""Detect the kind of a user's own folder or file, and which tasks its records serve."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.data.folders import METADATA, PICTURES, is_folder_of_pictures, visible_files
from janusflow.data.jsonlines import is_array
from janusflow.data.prepared import DROPPED, SHEET
from janusflow.data.sources.files import FileConfig, FileSource, has_suffix, served_by
from janusflow.data.sources.jsonl import JsonlConfig
from janusflow.data.sources.parquet import ParquetConfig
from janusflow.data.sources.registry import find_kind
from janusflow.data.sources.webdataset import WebdatasetConfig

PICTURE_TASKS = ("understanding", "generation")
KINDS = (WebdatasetConfig, ParquetConfig, JsonlConfig)


def file_config(kind: str, path: str, **settings: Any) -> FileConfig:
    """Return the settings of a source of files.

    Raises:
        ValueError: if the kind does not exist, or is not read from files.

    Example:
        >>> file_config("folder", "my_pictures").split
        'train'
    """
    found = find_kind(kind)
    if not issubclass(found, FileConfig):
        raise ValueError(f"kind of source is {quoted(kind)}; expected one that is read from files, such as folder")
    return found(kind, path, **settings)


def kind_of(path: str, *, captions: bool = True) -> str:
    """Return the kind of source of a folder or file: jsonl, folder, parquet or webdataset.

    Args:
        captions: whether pictures need captions.

    Raises:
        ValueError: if it is none of them, or contains pictures without captions next to a file of records.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"{path} does not exist")
    files = [place] if place.is_file() else visible_files(place)
    if place.is_dir() and is_folder_of_pictures(place):
        return "folder"
    pictures = {file.name for file in files if file.suffix.lower() in PICTURES}
    if place.is_dir() and not captions and pictures:
        records = [file for file in files if _has_records(file) and file.name != DROPPED]
        if not records:
            return "folder"
        if pictures != {SHEET}:  # a preparation's sheet shows what its shards contain
            shards = next((kind.kind for kind in KINDS[:2] if has_suffix(records[0], kind.suffixes)), None)
            way = f"--kind {shards}" if shards else records[0]
            only = "for the pictures without it, give --kind folder"
            raise ValueError(f"{path} also contains {records[0].relative_to(place)}; to read it, give {way}; {only}")
    if place.is_file() and place.suffix.lower() == ".json":
        return "jsonl"  # an array of the same rows
    for kind in KINDS:
        if any(has_suffix(file, kind.suffixes) for file in files):
            return kind.kind
    forms = f"pictures with a .txt file for each, {', '.join(METADATA)}, or .jsonl, .parquet or .tar files"
    arrays = [file for file in files if file.suffix.lower() == ".json"]
    hint = f"; to read {arrays[0].name}, give {arrays[0]}" if arrays else "; a .json array is given as a file"
    raise ValueError(f"{path} contains no data of a known form: {forms}{hint}")


def _has_records(file: Path) -> bool:
    return is_array(file) or any(has_suffix(file, kind.suffixes) for kind in KINDS)


@lru_cache(maxsize=8)
def tasks_of(kind: str, path: str) -> tuple[str, ...]:
    """Return the tasks that any readable record of a data set serves: understanding, generation.

    Raises:
        ValueError: if it cannot be read.
    """
    rows, folder = file_config(kind, path).rows()
    found: set[str] = set()
    for row in rows:
        found |= served_by(row, path, folder) or set()
        if found.issuperset(PICTURE_TASKS):
            break
    return tuple(task for task in PICTURE_TASKS if task in found)


@lru_cache(maxsize=8)
def size_of(kind: str, path: str, task: str) -> int:
    """Return the number of rows of a data set that serve a task or are malformed.

    Raises:
        ValueError: if it cannot be read, or no row serves the task.
    """
    return FileSource(file_config(kind, path, fitting=True), task).length or 0
