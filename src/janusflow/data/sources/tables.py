"""Read local files with Hugging Face `datasets`: Parquet, and JSON that is neither lines nor an array."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janusflow.data.jsonlines import FAULT, FOLDER
from janusflow.data.sources.files import FileConfig
from janusflow.offline import first_line


def read_tables(builder: str, files: Sequence[Path], config: FileConfig, hint: str = "") -> Any:
    """Read the rows of files with a builder of `datasets`; unless streamed, a damaged file loses only its own rows.

    Args:
        hint: how else to read the files, for errors.

    Raises:
        ValueError: if none can be read.
    """
    scattered = len({file.parent for file in files}) > 1 and not config.streaming
    try:
        rows = (_readable if scattered else _load)(builder, files, config)
    except unreadable() as error:
        if scattered:
            raise
        fault = f"{config.path} cannot be read as {config.kind}: {first_line(error)}{hint}"
        if config.streaming:
            raise ValueError(fault) from error
        if len(files) == 1:
            raise ValueError(f"{fault}; streaming=true reads what comes before the damage") from error
        rows = _readable(builder, files, config)
    return undecoded(rows)


def undecoded(rows: Any) -> Any:
    """Return the rows with their pictures undecoded, as files contain them."""
    import datasets

    raw = datasets.Image(decode=False)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, raw)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(raw))
    return rows


def unreadable() -> tuple[type[Exception], ...]:
    """Return the errors that `datasets` and pyarrow raise for files that they cannot read."""
    import datasets
    import pyarrow

    damaged = (LookupError, TypeError, AttributeError, StopIteration, RecursionError)  # for an odd structure
    return (OSError, ValueError, *damaged, pyarrow.lib.ArrowException, datasets.exceptions.DatasetGenerationError)


def _readable(builder: str, files: Sequence[Path], config: FileConfig) -> Any:
    """Read the rows of the readable files, each with its `FOLDER`.

    An unreadable file is replaced by the number of rows that a readable one of its size has. Their `FAULT` names it, so
    that losses count.
    """
    import datasets

    parts, lost, size = [], [], 0
    for file in files:
        try:
            rows = _load(builder, [file], config)
        except unreadable() as error:
            lost.append((file, f"{file} cannot be read, all of it is left out: {first_line(error)}"))
            continue
        parts.append(rows.add_column(FOLDER, [str(file.parent)] * len(rows)))
        size += file.stat().st_size
    if not parts:
        raise ValueError(f"none of the {len(files)} files of {config.path} can be read; the first: {lost[0][1]}")
    each = max(size // max(sum(map(len, parts)), 1), 1)  # bytes of a row
    faults = [{FAULT: fault} for file, fault in lost for _ in range(max(round(file.stat().st_size / each), 1))]
    return datasets.concatenate_datasets([*parts, *([datasets.Dataset.from_list(faults)] if faults else [])])


def _load(builder: str, files: Sequence[Path], config: FileConfig) -> Any:
    import datasets

    given = {config.split: [glob.escape(str(file)) for file in files]}  # they are read as patterns
    return datasets.load_dataset(builder, data_files=given, split=config.split, streaming=config.streaming)
