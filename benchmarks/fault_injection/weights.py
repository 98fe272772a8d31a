"""What is done to weights: safetensors, files of `torch.save`, PaddleNLP's pickles, and a training checkpoint's."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fault_injection.documents import (
    NESTING,
    Expect,
    Mutation,
    any_bytes,
    change_document,
    change_text,
    cut,
    flipped,
    protected,
    write_json,
)

MARKER = "marker"  # the file that a pickle would create, in the folder of its case


def safetensors_file(data: bytes, rng: Random) -> Mutation:
    """Change a safetensors file: its header, its tensors, or its bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    kind = rng.choice(("tensors", "tensors", "header", "length", "names", "head", "body", "cut", "text"))
    if kind == "tensors":
        tensors, words = change_tensors(load_tensors(data), rng)
        return Mutation(words, save_tensors(tensors, {"format": "pt"}), "refused")
    if kind == "header":
        found = change_document(json.loads(data[8 : 8 + length]), rng, write_json)
        new = found.data or b""
        return Mutation(f"header: {found.words}", struct.pack("<Q", len(new)) + new + data[8 + length :], "same")
    if kind == "length":
        wrong = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**62, len(data)))
        return Mutation(f"length of the header {wrong}", struct.pack("<Q", wrong) + data[8:])
    if kind == "names":
        new = data[8 : 8 + length].replace(b'"F32"', rng.choice((b'"F64"', b'"I32"', b'"BF16"', b'"X99"')), 1)
        return Mutation("dtype in the header", struct.pack("<Q", len(new)) + new + data[8 + length :])
    if kind == "head":
        return flipped(data, rng, "any", 0, 8 + length)  # a name in the header's metadata may change
    if kind == "body":
        return flipped(data, rng, "any", 8 + length)
    return cut(data, rng) if kind == "cut" else change_text(data, rng, "[" * NESTING)


def change_tensors(tensors: dict[str, torch.Tensor], rng: Random) -> tuple[dict[str, torch.Tensor], str]:
    """Change one tensor so that the file is no longer right."""
    changed = {name: value.clone() for name, value in tensors.items()}
    name = rng.choice(sorted(changed))
    kind = rng.choice(("missing", "surplus", "misshapen", "nan", "inf", "integer", "boolean", "none left", "empty"))
    value = changed[name]
    if kind == "missing":
        del changed[name]
    elif kind == "surplus":
        changed[f"{name}.more"] = value.clone()
    elif kind == "misshapen":
        changed[name] = torch.cat([value.flatten(), value.flatten()[:1]])
    elif kind in ("nan", "inf"):
        value.view(-1)[rng.randrange(value.numel())] = float(kind)
    elif kind in ("integer", "boolean"):
        changed[name] = value.to(torch.int64 if kind == "integer" else torch.bool)
    elif kind == "empty":
        changed[name] = value.flatten()[:0]
    else:
        changed = {}
    return changed, f"{name}: {kind}"


class Marker:
    """Unpickling creates a file, to show that code ran."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.place, "w")


HARMFUL = {  # pickles that ask for much, or for code
    "marker": lambda: pickle.dumps({"weight": Marker(MARKER)}, 2),
    "marker in protocol 4": lambda: pickle.dumps([Marker(MARKER)], 4),
    "memo index 2**27": lambda: b"\x80\x02}r" + struct.pack("<I", 2**27) + b".",
    "text of 2**31 characters": lambda: b"\x80\x02X" + struct.pack("<I", 2**31) + b"short.",
    "bytes of 2**33": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"short.",
    "frame of 2**40": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    "long of 2**30 digits": lambda: b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\x01.",
    "5000 nested lists": lambda: b"\x80\x02" + b"]" * NESTING + b"a" * (NESTING - 1) + b".",
    "nothing": lambda: b"\x80\x02N.",
    "a list": lambda: pickle.dumps([1, 2], 2),
    "a circle": lambda: b"\x80\x02]q\x00h\x00a.",
    "stack underflow": lambda: b"\x80\x02.",
}


def torch_file(data: bytes, rng: Random) -> Mutation:
    """Change a file of `torch.save`."""
    kind = rng.choice(("tensors", "tensors", "bytes", "bytes", "pickle", "harmful", "bare", "entry"))
    if kind == "tensors":
        tensors, words = change_tensors(torch.load(io.BytesIO(data), weights_only=True), rng)
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        return Mutation(words, buffer.getvalue(), "refused")
    if kind == "bytes":
        return any_bytes(data, rng)
    words, harmful = _harmful(rng)
    if kind == "bare":
        return Mutation(f"a bare pickle: {words}", harmful, "refused")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        entries = {entry.filename: packed.read(entry) for entry in packed.infolist()}
    name = next(entry for entry in entries if entry.endswith("data.pkl"))
    expect: Expect = "any"
    if kind == "pickle":
        found = flipped(entries[name], rng)
        words, entries[name] = f"data.pkl: {found.words}", found.data or b""
    elif kind == "harmful":
        words, entries[name], expect = f"data.pkl: {words}", harmful, "refused"
    else:
        lost = rng.choice(sorted(entries))
        words = f"entry {lost} removed"
        del entries[lost]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for entry, content in entries.items():
            packed.writestr(entry, content)
    return Mutation(words, buffer.getvalue(), expect)


def _harmful(rng: Random) -> tuple[str, bytes]:
    words = rng.choice(sorted(HARMFUL))
    return words, HARMFUL[words]()


def paddle_file(data: bytes, rng: Random) -> Mutation:
    """Change a `.pdparams` file, a pickle of arrays."""
    kind = rng.choice(("arrays", "arrays", "bytes", "head", "harmful", "harmful", "memo"))
    if kind == "bytes":
        return any_bytes(data, rng)
    if kind == "head":
        return flipped(data, rng, "any", 0, 512)
    if kind == "harmful":
        words, harmful = _harmful(rng)
        return Mutation(words, harmful, "refused")
    if kind == "memo":
        return Mutation("memo index 2**27 first", b"\x80\x02}r" + struct.pack("<I", 2**27) + b"0" + data[2:], "any")
    arrays = pickle.loads(data)  # ours, from the repository
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items() if isinstance(v, np.ndarray)}
    changed, words = change_tensors(tensors, rng)
    rest = {key: value for key, value in arrays.items() if not isinstance(value, np.ndarray)}
    return Mutation(words, pickle.dumps({**{k: v.numpy() for k, v in changed.items()}, **rest}, 2), "refused")


def metadata_file(data: bytes, rng: Random) -> Mutation:
    """Change `.metadata` of a distributed checkpoint, a pickle."""
    if rng.random() < 0.5:
        return protected(data, rng)
    words, harmful = _harmful(rng)
    return Mutation(words, harmful)
