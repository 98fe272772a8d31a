"""What is done to a valid file: each function takes its bytes and a random source and returns a `Mutation`.

Everything stays harmless to other software: sizes lie just above plausible limits, a pickle that would run code would
only create a marker file, and nothing is made to crash or hang a library.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import numpy as np
import torch
import yaml
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

Expect = Literal["any", "same", "refused"]
NESTING = 5000  # levels
LARGE = (2**16, 10**5, 10**6, 2**31, 10**9)  # layers, pixels, tokens, ranks
TEXTS = ("", "x" * 100_000, "../outside", "\ud800", "(a+)+$", "\x00", "None", "torch.float32", "complex64", "float16")
HOLE = "@@hole@@"  # a place in a document whose text is filled in later
MARKER = "marker"  # the file that a pickle would create, in the folder of its case


@dataclass(frozen=True)
class Mutation:
    """A changed file.

    Attributes:
        words: what was done.
        data: the new content; None removes the file.
        expect: "refused" if the file cannot be right; "same" if it is damaged, but the damage may lie where nothing is
            read, so that it must be refused or change nothing; "any" for what a valid file may contain too, such as
            another plausible number, a default in place of a value, or other bits of a weight without a checksum.
    """

    words: str
    data: bytes | None
    expect: Expect = "same"


Mutator = Callable[[bytes, Random], Mutation]


# --- documents --------------------------------------------------------------------------------------------------------


def json_file(data: bytes, rng: Random) -> Mutation:
    """Change one value of a JSON document, or its text."""
    if rng.random() < 0.25:
        return _text(data, rng, "[" * NESTING + "]" * NESTING)
    return _document(json.loads(data), rng, _json)


def _json(value: Any) -> bytes:
    deep = "[" * NESTING + "]" * NESTING
    return json.dumps(value, indent=1).replace(f'"{HOLE}"', deep).encode()


def json_line(data: bytes, rng: Random) -> Mutation:
    """Change one line of a file of JSON lines."""
    lines = data.splitlines()
    chosen = rng.randrange(len(lines))
    found = json_file(lines[chosen], rng)
    new = (found.data or b"").replace(b"\n", b" ")
    words = f"line {chosen + 1}: {found.words}"
    return Mutation(words, b"\n".join([*lines[:chosen], new, *lines[chosen + 1 :]]) + b"\n", found.expect)


def yaml_file(data: bytes, rng: Random) -> Mutation:
    """Change one value of a YAML document, or its text."""
    text = data.decode()
    kind = rng.choice(("value", "value", "value", "text", "alias", "circle", "key", "tab", "reference"))
    if kind == "value":
        return _document(yaml.safe_load(text), rng, _yaml)
    if kind == "text":
        return _text(data, rng, "[" * 300 + "]" * 300)  # libyaml itself goes no deeper than the stack
    if kind == "alias":
        levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 5))
        return Mutation(
            "10,000 values by aliases", f"l0: &l0 [{', '.join('1' * 10)}]\n{levels}\n{text}".encode(), "any"
        )
    added = {
        "circle": "odd: &odd [*odd]\n",
        "key": "no_such_key: 1\n",
        "tab": "\tsteps: 1\n",
        "reference": "out: ${no.such.key}\n",
    }[kind]
    return Mutation(f"{kind} added", added.encode() + data, "any")


def _yaml(value: Any) -> bytes:
    deep = "[" * 300 + "]" * 300
    return yaml.safe_dump(value, allow_unicode=False).replace(f"'{HOLE}'", deep).encode()


def _text(data: bytes, rng: Random, deep: str) -> Mutation:
    """Damage a document as text."""
    kind = rng.choice(("cut", "cut", "utf-8", "empty", "nested", "replaced", "flipped", "removed"))
    if kind == "cut":
        place = rng.randrange(1, len(data))
        return Mutation(f"cut off after {place} bytes", data[:place])
    if kind == "utf-8":
        place = rng.randrange(len(data))
        return Mutation(f"byte 0xff at {place}", data[:place] + b"\xff" + data[place:])
    if kind == "nested":
        return Mutation(f"{len(deep) // 2} nested lists", deep.encode())
    if kind == "replaced":
        whole = rng.choice(("null", "7", '"text"', "[]", "{}", "[{}]", "NaN", '{"a": {"b": []}}'))
        return Mutation(f"replaced by {whole}", whole.encode(), "any")
    if kind == "flipped":
        return flipped(data, rng, "any")
    return Mutation(kind, None if kind == "removed" else b"", "any")


def _document(document: Any, rng: Random, write: Callable[[Any], bytes]) -> Mutation:
    """Change one value of a document; shallow ones are more likely."""
    holder = {"": document}
    place: Any = holder
    key: Any = ""
    path = []
    while isinstance(place[key], (dict, list)) and place[key] and (not path or rng.random() < 0.8):
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        path.append(str(key))
    value = place[key]
    kinds = ["delete", "null", "type", "type", "nested"]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        kinds += ["large", "large", "negative", "nan", "zero"]
    elif isinstance(value, list):
        kinds += ["longer", "shorter", "empty"]
    elif isinstance(value, str):
        kinds += ["text", "text"]
    kind = rng.choice(kinds)
    expect: Expect = "any" if kind in ("delete", "null", "large", "text", "zero", "empty") else "same"
    if kind == "delete":
        del place[key]
    else:
        place[key] = new = _value(kind, value, rng)
        if kind == "negative" and isinstance(value, float):
            expect = "any"
        if isinstance(value, list) and kind in ("longer", "shorter") and not all(isinstance(v, float) for v in value):
            expect = "any"
        kind += f" {new!r:.60}" if kind != "nested" else ""
    return Mutation(f"{'.'.join(path)}: {value!r:.40} {kind}", write(holder.get("")), expect)


def _value(kind: str, value: Any, rng: Random) -> Any:
    if kind == "type":
        return rng.choice([v for v in ("text", 7, 1.5, True, [], {}, [1], {"a": 1}) if type(v) is not type(value)])
    if kind == "large":
        return rng.choice(LARGE) if isinstance(value, int) else rng.choice((1e6, 1e30))
    return {
        "null": lambda: None,
        "nested": lambda: HOLE,
        "negative": lambda: -abs(value) - 1,
        "nan": lambda: rng.choice((math.nan, math.inf, -math.inf)),
        "zero": lambda: type(value)(0),
        "longer": lambda: [*value, *value[:1]] or [1],
        "shorter": lambda: value[:-1],
        "empty": list,
        "text": lambda: rng.choice(TEXTS),
    }[kind]()


def index_file(data: bytes, rng: Random) -> Mutation:
    """Change the index of a sharded checkpoint; its entries may lead outside the folder, where the file does exist."""
    if rng.random() < 0.5:
        return json_file(data, rng)
    index = json.loads(data)
    name = rng.choice(sorted(index["weight_map"]))
    place = rng.choice(("../outside.safetensors", "/dev/null", "sub/../../outside.safetensors", ".", ""))
    index["weight_map"][name] = place
    return Mutation(f"{name} lies in {place!r}", json.dumps(index).encode(), "refused")


# --- bytes ------------------------------------------------------------------------------------------------------------


def flipped(data: bytes, rng: Random, expect: Expect = "same", first: int = 0, last: int | None = None) -> Mutation:
    """Flip bits of one to eight bytes in a part of the file."""
    changed = bytearray(data)
    places = [rng.randrange(first, last or len(data)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        changed[place] ^= rng.randrange(1, 256)
    return Mutation(f"bytes {places} flipped", bytes(changed), expect)


def cut(data: bytes, rng: Random) -> Mutation:
    """Cut a file off."""
    place = rng.choice((1, 7, rng.randrange(1, len(data)), rng.randrange(1, len(data)), len(data) - 1))
    return Mutation(f"cut off after {place} of {len(data)} bytes", data[:place])


def any_bytes(data: bytes, rng: Random, expect: Expect = "any") -> Mutation:
    """Damage a file of any format."""
    kind = rng.choice(("flip", "flip", "flip", "head", "cut", "cut", "empty", "zeros", "removed", "text"))
    if kind == "flip":
        return flipped(data, rng, expect)
    if kind == "head":
        return flipped(data, rng, expect, 0, min(len(data), 64))
    if kind == "cut":
        found = cut(data, rng)
        return Mutation(found.words, found.data, expect)
    if kind == "zeros":
        start = rng.randrange(len(data))
        length = min(rng.randrange(1, 4096), len(data) - start)
        changed = data[:start] + bytes(length) + data[start + length :]
        return Mutation(f"{length} bytes from {start} on zeroed", changed, expect)
    return Mutation(
        kind, {"empty": b"", "removed": None, "text": b"version https://git-lfs.github.com/spec/v1\n"}[kind]
    )


def protected(data: bytes, rng: Random) -> Mutation:
    """Damage a file that a checksum protects."""
    return any_bytes(data, rng, "same")


# --- tensors ----------------------------------------------------------------------------------------------------------


def safetensors_file(data: bytes, rng: Random) -> Mutation:
    """Change a safetensors file: its header, its tensors, or its bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    kind = rng.choice(("tensors", "tensors", "header", "length", "names", "head", "body", "cut", "text"))
    if kind == "tensors":
        tensors, words = change_tensors(load_tensors(data), rng)
        return Mutation(words, save_tensors(tensors, {"format": "pt"}), "refused")
    if kind == "header":
        found = _document(json.loads(data[8 : 8 + length]), rng, _json)
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
    return cut(data, rng) if kind == "cut" else _text(data, rng, "[" * NESTING)


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


# --- pictures and records ---------------------------------------------------------------------------------------------


def picture_file(data: bytes, rng: Random) -> Mutation:
    """Damage a picture, or make it declare another size."""
    kind = rng.choice(("bytes", "bytes", "cut", "head", "size"))
    if kind == "bytes":
        return any_bytes(data, rng)
    if kind == "cut":
        return cut(data, rng)
    if kind == "head" or not data.startswith(b"\x89PNG"):
        return flipped(data, rng, "any", 0, min(len(data), 200))
    size = rng.choice(((7000, 7000), (8000, 7000), (0, 8), (2**31 - 1, 1), (100_000, 100_000), (16, 4000)))
    header = b"IHDR" + struct.pack(">II", *size) + data[24:29]
    changed = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    return Mutation(f"declared size {size}", changed, "any")


def text_file(data: bytes, rng: Random) -> Mutation:
    """Damage a file of text: a caption, or a table."""
    kind = rng.choice(("bytes", "bytes", "utf-8", "long", "quotes", "zeros"))
    if kind == "bytes":
        return any_bytes(data, rng)
    if kind == "utf-8":
        place = rng.randrange(len(data))
        return Mutation(f"byte 0xff at {place}", data[:place] + b"\xff" + data[place:], "any")
    added = {"long": b"x" * 500_000, "quotes": b'"' * 101 + b",,,\n", "zeros": bytes(1000)}[kind]
    return Mutation(f"{kind} added", data + added, "any")


def tar_file(data: bytes, rng: Random) -> Mutation:
    """Change a WebDataset shard."""
    kind = rng.choice(("bytes", "bytes", "member", "outside", "header"))
    if kind == "bytes":
        return any_bytes(data, rng)
    if kind == "header":
        return flipped(data, rng, "any", 0, 512)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        members = [member for member in old if member.isfile()]
        chosen = rng.randrange(len(members))
        for number, member in enumerate(members):
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if number == chosen and kind == "outside":
                member.name = "../../outside.png"
            elif number == chosen:
                content = any_bytes(content, rng).data or b""
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return Mutation(f"member {members[chosen].name}: {kind}", buffer.getvalue(), "any")
