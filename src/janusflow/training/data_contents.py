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

from janusflow.data.constraints import Count
from janusflow.files import checked, read_json, write_text
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import learned
from janusflow.training.distributed import World

CONTENTS = "data.json"


def check_contents(out: Path, config: TrainConfig, world: World) -> None:
    """Compare the data files with those that the run in a folder was started with.

    Raises:
        ValueError: in all processes, if they differ and `data.allow_changes` is not set.
    """
    changes = [] if config.data.allow_changes or not world.first else _changes(out, config)
    if world.any(bool(changes)):
        what = changes[0] if changes else "see the first process"
        raise ValueError(
            f"the data has changed since the run in {out} was started ({what}), so its samples would come in another "
            "order; restore the files, or accept the change with data.allow_changes=true"
        )


def write_contents(out: Path, config: TrainConfig) -> None:
    """Write the contents of the data into a run's folder."""
    content = {path: asdict(described) for path, described in _contents(config).items()}
    write_text(out / CONTENTS, json.dumps(content, indent=1) + "\n")


def _changes(out: Path, config: TrainConfig) -> list[str]:
    file = out / CONTENTS
    if not file.is_file():  # a run started with an older version
        return []
    try:
        before = checked(dict[str, _Contents], read_json(file), file)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to resume without comparing the data") from error
    now = _contents(config)
    changed = [path for path in before if path in now and now[path] != before[path]]
    return [f"{path}: {before[path]}, now {now[path]}" for path in changed]


@dataclass(frozen=True)
class _Contents:
    """Number and total size of a source's files, and a digest of their names and sizes."""

    files: Count
    bytes: Count
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
