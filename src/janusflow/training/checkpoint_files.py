"""The files of a training checkpoint: reading them runs no code from them, and each has a checksum.

`torch.distributed.checkpoint` describes a checkpoint in `.metadata`, a pickle, and pickles every entry that is not a
tensor. The unpicklers used here admit only plain values and the classes of such a description.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.serialization import _get_layout

from janusflow.files import checked, read_json

METADATA = ".metadata"  # torch.distributed.checkpoint writes it last, when every process has written
CHECKSUMS = "checksums.json"
CHUNK = 2**24  # bytes hashed at once
DESCRIPTIONS = (
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "_MEM_FORMAT_ENCODING",
)
ADMITTED: dict[tuple[str, str], Any] = {
    **{(described.__name__, name): getattr(described, name) for name in DESCRIPTIONS},
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo,
    ("torch.serialization", "_get_layout"): _get_layout,
    ("torch", "Size"): torch.Size,
    ("pathlib", "PosixPath"): lambda *parts: "/".join(parts),  # where it was written; nothing reads this
    ("pathlib", "WindowsPath"): lambda *parts: "/".join(parts),
}


class _Unpickler(pickle._Unpickler):  # the C unpickler allocates memory for any memo index
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype):
            return value
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a checkpoint never needs")
        return ADMITTED[module, name]


class SafeReader(FileSystemReader):
    """A reader of checkpoint folders that executes nothing in them and opens no file outside them."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read `.metadata`.

        Raises:
            ValueError: if it is damaged, or describes anything other than tensors in files of this folder.
        """
        file = Path(self.path) / METADATA
        try:
            metadata = _Unpickler(io.BytesIO(file.read_bytes())).load()
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can raise any
            raise ValueError(f"{METADATA} is damaged: {str(error) or type(error).__name__}") from error
        if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
            raise ValueError(f"{METADATA} is damaged: it describes no checkpoint")
        for stored in metadata.storage_data.values():
            name = getattr(stored, "relative_path", None)
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(f"{METADATA} names the file {name!r}, which is not in the checkpoint's folder")
        metadata.storage_meta = described.StorageMeta(load_id=self.load_id)
        return metadata


class SafePlanner(DefaultLoadPlanner):
    """A load planner that reads only numbers, strings and plain containers for entries that are not tensors."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Read one entry with `weights_only=True`."""
        name = read_item.dest_index.fqn
        loaded = torch.load(value, weights_only=True)
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], loaded)
        else:
            self.state_dict[name] = loaded


def write_checksums(folder: Path) -> None:
    """Write `checksums.json`: the xxh3 digest of each file of a checkpoint."""
    digests = {file.name: _digest(file) for file in sorted(folder.iterdir()) if file.name != CHECKSUMS}
    (folder / CHECKSUMS).write_text(json.dumps(digests, indent=1) + "\n")


def damaged_file(folder: Path, mine: Callable[[int], bool]) -> str | None:
    """Describe what differs from the checkpoint's checksums; return None if nothing does.

    Args:
        folder: the checkpoint. Checkpoints from before checksums existed pass.
        mine: whether this process checks file number i; other processes check the rest.
    """
    file = folder / CHECKSUMS
    if not file.is_file():
        return None
    try:
        names = sorted(checked(dict[str, str], read_json(file), file).items())
    except ValueError:
        return f"{CHECKSUMS} is damaged"
    for index, (name, digest) in enumerate(names):
        if Path(name).name != name or not (folder / name).is_file():
            return f"{name} is missing"
        if mine(index) and _digest(folder / name) != digest:
            return f"{name} differs from its checksum"
    return None


def _digest(file: Path) -> str:
    state = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()
