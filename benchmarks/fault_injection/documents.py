"""What is done to a valid file: each function takes its bytes and a random source and returns a `Mutation`. Here for
JSON, YAML and plain bytes; `weights` and `media` have the rest.

Everything stays harmless to other software: sizes lie just above plausible limits, a pickle that would run code would
only create a marker file, and nothing is made to crash or hang a library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import yaml

Expect = Literal["any", "same", "refused"]
NESTING = 5000  # levels
LARGE = (2**16, 10**5, 10**6, 2**31, 10**9)  # layers, pixels, tokens, ranks
TEXTS = ("", "x" * 100_000, "../outside", "\ud800", "(a+)+$", "\x00", "None", "torch.float32", "complex64", "float16")
HOLE = "@@hole@@"  # a place in a document whose text is filled in later


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


def json_file(data: bytes, rng: Random) -> Mutation:
    """Change one value of a JSON document, or its text."""
    if rng.random() < 0.25:
        return change_text(data, rng, "[" * NESTING + "]" * NESTING)
    return change_document(json.loads(data), rng, write_json)


def write_json(value: Any) -> bytes:
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
        return change_document(yaml.safe_load(text), rng, write_yaml)
    if kind == "text":
        found = change_text(data, rng, "[" * 300 + "]" * 300)  # libyaml itself goes no deeper than the stack
        return replace(found, expect="any") if found.words.startswith("cut") else found  # a part is a document too
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


def write_yaml(value: Any) -> bytes:
    deep = "[" * 300 + "]" * 300
    return yaml.safe_dump(value, allow_unicode=False).replace(f"'{HOLE}'", deep).encode()


def change_text(data: bytes, rng: Random, deep: str) -> Mutation:
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


def change_document(document: Any, rng: Random, write: Callable[[Any], bytes]) -> Mutation:
    """Change one value of a document; shallow ones are more likely."""
    holder = {"": document}
    place: Any = holder
    key: Any = ""
    path: list[str] = []
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
        place[key] = new = _changed(kind, value, rng)
        if isinstance(value, float) and (kind == "negative" or type(new) is int):
            expect = "any"
        if isinstance(value, list) and kind in ("longer", "shorter") and not all(isinstance(v, float) for v in value):
            expect = "any"
        kind += f" {new!r:.60}" if kind != "nested" else ""
    return Mutation(f"{'.'.join(path)}: {value!r:.40} {kind}", write(holder.get("")), expect)


def _changed(kind: str, value: Any, rng: Random) -> Any:
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
