"""Digests of files and items: an output is of one question, and a verdict on one output, one item and its references.

What depends on something that has changed is made or judged again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from janusflow.evaluation.protocol import Benchmark, Item
from janusflow.files import ESCAPED
from janusflow.processing.images import ImageSource

BLOCK = 1 << 22
SHORT = 16  # hexadecimal digits of what stands in a record


def asked_digest(benchmark: Benchmark, item: Item) -> str:
    """Of all that a model is shown: prompt, system prompt, pictures, and the seed where a picture is generated."""
    seed = item.seed if benchmark.drawn(item) else None
    shown = [item.prompt, item.system, seed, [_content(picture) for picture in item.images]]
    if (more := benchmark.also_shown(item)) is not None:
        shown.append(more)
    return hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()[:SHORT]


def judged_digest(benchmark: Benchmark, item: Item, output: bytes) -> str:
    """Of all that shapes a verdict, judges and their settings apart: the output, the item and its reference files.

    Args:
        benchmark: whose item.
        item: with its reference answer in `data`.
        output: the picture's file, or the answer in UTF-8.
    """
    references = [_content(file) for file in benchmark.references(item)]
    known = json.dumps([asked_digest(benchmark, item), item.data, references], default=str)
    return hashlib.sha256(known.encode(errors=ESCAPED) + b"\0" + output).hexdigest()[:SHORT]


def sha256(file: Path) -> str:
    """Of a file's bytes, in hexadecimal; read again only if its size or time has changed."""
    status = file.stat()
    return _sha256(str(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 18)
def _sha256(file: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with Path(file).open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hashes(found: Sequence[Path]) -> dict[str, str]:
    """sha256 of files, by their paths under the folder that they share."""
    if not found:
        return {}
    root = Path(os.path.commonpath([file.parent for file in found]))
    return {str(file.relative_to(root)): sha256(file) for file in found}


def hash_of_all(pictures: Sequence[Path]) -> dict[str, str]:
    """One sha256 over the hashes of many files, in the order of their names; nothing if there are none."""
    if not pictures:
        return {}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes(pictures).items()))
    return {f"{len(pictures)} pictures": hashlib.sha256(lines.encode()).hexdigest()}


def _content(picture: ImageSource) -> str:
    """sha256 of a picture's bytes or pixels; of a name that is no file here, of the name."""
    if isinstance(picture, Image.Image):
        return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().float().numpy()
    if isinstance(picture, np.ndarray):
        return hashlib.sha256(f"{picture.dtype}{picture.shape}".encode() + picture.tobytes()).hexdigest()
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    name = os.fspath(picture)
    if not name.startswith("data:") and Path(name).is_file():
        return sha256(Path(name))
    return hashlib.sha256(name.encode(errors=ESCAPED)).hexdigest()
