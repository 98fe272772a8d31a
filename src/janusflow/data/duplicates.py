"""Which records are copies of one another: pictures that look alike up to scaling and recompression, equal talks.

A picture's fingerprint is a small version of it, and fingerprints are compared cell by cell: a hash whose bits have to
be equal misses a copy as soon as a JPEG moves one value across the border between two bits. Compression and scaling
move a cell by a few values where the picture is smooth and by more at edges, so a cell may differ by more there. A
shape that only one of two pictures has moves its cells by nearly all of its own contrast.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from PIL import Image

from janusflow.data.records import Record

SIDE, FINE = 8, 32  # cells of a fingerprint's side, and pixels of a cell's side before they are averaged
BYTES = 3 * SIDE**2
NEAR = 5  # of 255: the most by which a cell may differ between copies where all around it is alike
EDGE = 0.15  # share of the contrast around a cell by which it may differ in addition
BUCKET, MOVED = (
    12,
    3,
)  # of 255: width of the buckets of mean values, and the most by which a mean differs between copies
FEW = 13  # every 13th value is compared first: such values lie in different cells and channels
TALK = ":"  # before a digest's conversation


class Copies:
    """The records that were kept, and whether another one is a copy of any.

    They lie in buckets by the means of their first picture, so that a record is compared with few others.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._known: dict[bytes, list[bytes]] = defaultdict(list)
        for digest in digests:
            self.add(digest)

    def __contains__(self, digest: str) -> bool:
        talk, small = _parts(digest)
        lists = [known for key in _buckets(talk, small, MOVED) if (known := self._known.get(key))]
        if not lists or not small:
            return bool(lists)
        wanted, allowed = np.frombuffer(small, np.uint8).astype(np.int16), _allowed(small)
        for known in lists:
            found = np.frombuffer(b"".join(known), np.uint8).reshape(-1, len(small))
            for every in (FEW, 1):  # a few cells rule out nearly all, which matters in large buckets
                near = np.abs(found[:, ::every].astype(np.int16) - wanted[::every]) <= allowed[::every]
                found = found[near.all(axis=1)]
            if len(found):
                return True
        return False

    def add(self, digest: str) -> None:
        """Remembers a record."""
        talk, small = _parts(digest)
        self._known[next(_buckets(talk, small, 0))].append(small)

    def discard(self, digest: str) -> None:
        """Forgets a record that was added."""
        talk, small = _parts(digest)
        self._known[next(_buckets(talk, small, 0))].remove(small)


def digest_of(record: Record, images: Sequence[Image.Image]) -> str:
    """What `Copies` compares of a record: its pictures' fingerprints and, word for word, its conversation."""
    talk = hashlib.sha256(repr((record.system, record.turns)).encode()).hexdigest()[:32] if record.turns else ""
    return "".join(fingerprint(image).hex() for image in images) + TALK + talk


def fingerprint(image: Image.Image) -> bytes:
    """A picture's small version: Y, Cb and Cr of 8 x 8 cells, (8, 8, 3) bytes.

    Pillow's box filter takes whole pixels, so that cells of few pixels would move with the picture's size; a finer grid
    in between makes them the mean of their area.
    """
    fine = image.convert("RGB").resize((SIDE * FINE, SIDE * FINE), Image.Resampling.BOX)
    return fine.convert("YCbCr").reduce(FINE).tobytes()


def _parts(digest: str) -> tuple[str, bytes]:
    """A digest's conversation and its fingerprints; one of an earlier version is equal only to itself."""
    pictures, mark, talk = digest.rpartition(TALK)
    known = mark and len(pictures) % (2 * BYTES) == 0
    return (talk, bytes.fromhex(pictures)) if known else (digest, b"")


def _allowed(small: bytes) -> np.ndarray:
    """By how much each value of some fingerprints may differ, (n 192,): by more where those around it differ."""
    cells = np.frombuffer(small, np.uint8).reshape(-1, SIDE, SIDE, 3).astype(np.int16)
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    nine = np.stack([around[:, y : y + SIDE, x : x + SIDE] for y, x in product(range(3), repeat=2)])
    return (NEAR + EDGE * np.ptp(nine, axis=0)).ravel()


def _buckets(talk: str, small: bytes, moved: int) -> Iterator[bytes]:
    """The buckets of records with that conversation and number of pictures whose means differ by at most `moved`: the
    mean Y of each quarter of the first picture, and its mean Cb and Cr.
    """
    start = f"{talk}/{len(small)}/".encode()
    if not small:
        return iter([start])
    cells = np.frombuffer(small, np.uint8, BYTES).reshape(SIDE, SIDE, 3).astype(float)
    quarters = cells[..., 0].reshape(2, SIDE // 2, 2, SIDE // 2).mean(axis=(1, 3)).ravel()
    means = [*quarters, *cells[..., 1:].mean(axis=(0, 1))]
    either = [sorted({int((mean - moved) // BUCKET), int((mean + moved) // BUCKET)}) for mean in means]
    return (start + bytes(value + 1 for value in values) for values in product(*either))
