"""Digests of files and items: an output belongs to one question, a verdict to one output, one item and its references.

Outputs and verdicts are made again if something that they depend on has changed.
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

SHORT = 16  # hexadecimal digits of a digest in a record


def asked_digest(benchmark: Benchmark, item: Item) -> str:
    """Return a digest of all that a model sees: prompt, system prompt, pictures, and the seed if it generates."""
    seed = item.seed if benchmark.drawn(item) else None
    shown = [item.prompt, item.system, seed, [_content(picture) for picture in item.images]]
    if (more := benchmark.also_shown(item)) is not None:
        shown.append(more)
    return hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()[:SHORT]


def judged_digest(benchmark: Benchmark, item: Item, asked: str, output: bytes) -> str:
    """Return a digest of all that a verdict depends on, except judges and their settings: output, item and references.

    Args:
        item: the item, with its reference answer in `data`.
        output: content of the picture's file, or the answer in UTF-8.
    """
    references = [_content(file) for file in benchmark.references(item)]
    known = json.dumps([asked, item.data, references], default=str)
    return hashlib.sha256(known.encode(errors=ESCAPED) + b"\0" + output).hexdigest()[:SHORT]


def sha256(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal; the file is only read again if its size or time has changed."""
    status = file.stat()
    return _sha256(str(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 18)
def _sha256(file: str, size: int, changed: int) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(found: Sequence[Path]) -> dict[str, str]:
    """Return the sha256 of files, by their paths in their common folder."""
    if not found:
        return {}
    root = Path(os.path.commonpath([file.parent for file in found]))
    return {str(file.relative_to(root)): sha256(file) for file in found}


def hash_of_all(pictures: Sequence[Path]) -> dict[str, str]:
    """Return one sha256 over the hashes of many files, in the order of their names; nothing if there are none."""
    if not pictures:
        return {}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes(pictures).items()))
    return {f"{len(pictures)} pictures": hashlib.sha256(lines.encode()).hexdigest()}


def _content(picture: ImageSource) -> str:
    """Return the sha256 of a picture's bytes or pixels; for a name that is not a file here, of the name."""
    if isinstance(picture, Image.Image):
        content = f"{picture.mode}{picture.size}".encode() + picture.tobytes()
    elif isinstance(picture, (Tensor, np.ndarray)):
        pixels = picture.detach().cpu().float().numpy() if isinstance(picture, Tensor) else picture
        content = f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()
    elif isinstance(picture, bytes):
        content = picture
    else:
        name = os.fspath(picture)
        if not name.startswith("data:") and Path(name).is_file():
            return sha256(Path(name))
        content = name.encode(errors=ESCAPED)
    return hashlib.sha256(content).hexdigest()
