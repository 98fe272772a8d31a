"""What is done to pictures, texts and tar files."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from random import Random

from fault_injection.documents import Mutation, any_bytes, cut, flipped


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
