"""A record of a run's local data, so that a resumed run notices when files were added, removed or replaced.

Sample n of a run is a function of n and of the data files. With other files the same number selects another sample, so
a resumed run would see some samples twice and others never.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from janusflow.data.constraints import NonNegativeInt
from janusflow.files import checked, read_json, write_text
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import learned
from janusflow.training.distributed import World

CONTENTS = "data.json"


def check_contents(out: Path, config: TrainConfig, world: World) -> None:
    """Compare the data files with those that the run in a folder was started with.

    Raises:
        ValueError: in all processes, if they differ or cannot be compared, and `data.allow_changes` is not set.
    """
    problem = _problem(out, config) if world.first and not config.data.allow_changes else ""
    if world.any(bool(problem)):
        raise ValueError(problem or f"the run in {out} is not resumed; see the message of the first process")


def write_contents(out: Path, config: TrainConfig) -> None:
    """Write the contents of the data into a run's folder."""
    content = {path: asdict(described) for path, described in _contents(config).items()}
    write_text(out / CONTENTS, json.dumps(content, indent=1) + "\n")


def _problem(out: Path, config: TrainConfig) -> str:
    """Return why the run should not be resumed with this data; empty if nothing has changed."""
    file = out / CONTENTS
    if not file.is_file():  # a run started with an older version
        return ""
    try:
        before = checked(dict[str, _Contents], read_json(file), file)
    except ValueError as error:
        return f"{error}; delete it to resume without comparing the data"
    try:
        now = _contents(config)
    except (ValueError, OSError) as error:
        return str(error)
    changed = next((path for path in before if path in now and now[path] != before[path]), None)
    if changed is None:
        return ""
    return (
        f"the data has changed since the run in {out} was started ({changed}: {before[changed]}, now {now[changed]}), "
        "so its samples would come in another order; restore the files, or accept the change with "
        "data.allow_changes=true"
    )


@dataclass(frozen=True)
class _Contents:
    """Number and total size of a source's files, and a digest of their names and sizes."""

    files: NonNegativeInt
    bytes: NonNegativeInt
    digest: str

    def __str__(self) -> str:
        return f"{self.files} files of {self.bytes} bytes"


def _contents(config: TrainConfig) -> dict[str, _Contents]:
    """Return the contents of each local source by its path."""
    found = {source.path: source.files() for *_, source in learned(config.data)}
    return {path: _described(files) for path, files in found.items() if files}


def _described(files: Sequence[Path]) -> _Contents:
    digest, sizes = xxhash.xxh3_128(), [file.stat().st_size for file in files]
    above = os.path.commonpath([file.parent for file in files]) if files else ""
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.relative_to(above)}\0{size}\n".encode(errors="surrogateescape"))
    return _Contents(len(files), sum(sizes), digest.hexdigest())
