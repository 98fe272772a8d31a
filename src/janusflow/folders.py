"""Find the folder of a checkpoint, read its JSON files, and write one atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from janusflow import files
from janusflow.arguments import quoted
from janusflow.offline import cached_if_unreachable, first_line

TINY = "tiny"
OWN_WEIGHTS = ("model*.safetensors*", "official_extras.safetensors")  # that this package writes
SMALL_FILES = ["*.json", "*.jinja", "LICENSE*", "README.md"]
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pdparams")
HUB_FILES = [*SMALL_FILES, *WEIGHT_FILES, "vae/*"]


def find_folder(path_or_id: str | Path, *, weights: bool = True, what: str = "model") -> Path:
    """Return the local folder of a checkpoint; a hub id is downloaded.

    Args:
        path_or_id: "tiny" (the shipped model), a folder, or a hub id.
        weights: whether to download the weights of a hub id, or only its small files.
        what: what the checkpoint is called in error messages.

    Raises:
        ValueError: if it is none of these, or the hub cannot be reached and nothing is cached.
    """
    if str(path_or_id) == TINY:
        return Path(str(resources.files("janusflow") / "assets" / TINY))
    folder = Path(os.path.expanduser(path_or_id))
    name = str(path_or_id)
    try:
        if folder.is_dir():
            return folder
    except OSError as error:  # the name is longer than any path
        raise ValueError(f"{what} is {quoted(name)}; {error.strerror}") from error
    if "${" in name:
        raise ValueError(f"{what} is {quoted(name)}, which names a variable of the environment that is not set")
    if folder.is_file():
        raise ValueError(f"{what} is {quoted(name)}, a file; expected the folder that contains it")
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        expected = "'tiny', a folder, or a hub id (deepseek-ai/JanusFlow-1.3B)"
        raise ValueError(f"{what} is {quoted(name)}; expected {expected}")
    why = ""
    try:
        with cached_if_unreachable(name) as why:
            return Path(snapshot_download(name, allow_patterns=HUB_FILES if weights else SMALL_FILES))
    except (HFValidationError, RepositoryNotFoundError) as error:
        reason = "which is neither a folder here nor a repository of the hub"
        raise ValueError(f"{what} is {quoted(name)}, {reason}") from error
    except Exception as error:  # from the hub, the HTTP library or the system
        why = why or f"it cannot be fetched: {first_line(error)}"
        raise ValueError(f"{what} {quoted(name)} is neither a folder here nor in the hub's cache, and {why}") from error


@contextmanager
def put_together(folder: Path, *, whole: Collection[str] = ()) -> Iterator[Path]:
    """Yield a new folder, which becomes the target at the end.

    If the target exists, the new files are moved into it, `config.json` last, and old weights are removed; other files
    there are kept. If the body fails, nothing in the target changes.

    Args:
        folder: the target.
        whole: names of subfolders of which nothing old is kept.

    Raises:
        ValueError: if the target is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{quoted(str(folder))} is a file; a model is saved as a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.temporary_path(folder) as temporary:
        temporary.mkdir()
        yield temporary
        new = [file for file in temporary.rglob("*") if file.is_file()]
        for file in new:
            file.chmod(0o644)
        if not folder.exists():
            temporary.rename(folder)
            return
        names = {file.relative_to(temporary) for file in new}
        weights = [file for pattern in OWN_WEIGHTS for file in folder.glob(pattern)]
        stale = [file for file in weights if file.relative_to(folder) not in names]
        for part in whole:
            shutil.rmtree(folder / part, ignore_errors=True)
        for name in sorted(names, key=lambda name: name == Path("config.json")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(folder / name)
        for file in stale:
            file.unlink()


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint.

    Raises:
        ValueError: if it is missing or not a JSON object.
    """
    if not file.is_file():
        what = "is not a checkpoint folder" if file.name == "config.json" else "is an incomplete checkpoint folder"
        export = file.parent / "export"
        hint = f"; the model that training wrote is {export}" if (export / file.name).is_file() else ""
        raise ValueError(f"{file.parent} {what}: it has no {file.name}{hint}")
    value = files.read_json(file)
    if not isinstance(value, dict):
        raise ValueError(f"{file} is damaged: it is not a JSON object")
    return value
