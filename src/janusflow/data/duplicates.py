"""Which records are copies of one another: pictures that look alike up to scaling and recompression, equal talks.

A picture's fingerprint is a small version of it, and fingerprints are compared by distance: a hash whose bits have to
be equal misses a copy as soon as a JPEG moves one value across the border between two bits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from PIL import Image

from janusflow.data.records import Record

GREY_SIDE, COLOR_SIDE = 8, 4  # cells of the small version, in brightness and in each of the two colour channels
BYTES = GREY_SIDE**2 + 2 * COLOR_SIDE**2
NEAR = 8  # of 255: the most by which a cell may differ between copies
BUCKET = 64  # of 255: brightness of the quarters by which fingerprints are looked up
TALK = ":"  # before a digest's conversation


class Copies:
    """The records that were kept, and whether another one is a copy of any.

    Args:
        digests: of `digest_of`.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._known: dict[tuple[str, int, tuple[int, ...]], list[bytes]] = defaultdict(list)
        for digest in digests:
            self.add(digest)

    def __contains__(self, digest: str) -> bool:
        talk, small = _parts(digest)
        if not small:
            return bool(self._known.get((talk, 0, ())))
        for cells in _cells(small, NEAR):
            if (known := self._known.get((talk, len(small), cells))) is not None:
                found = np.frombuffer(b"".join(known), np.uint8).reshape(-1, len(small)).astype(np.int16)
                if (np.abs(found - np.frombuffer(small, np.uint8)).max(axis=1) <= NEAR).any():
                    return True
        return False

    def add(self, digest: str) -> None:
        """Remembers a record."""
        talk, small = _parts(digest)
        self._known[talk, len(small), next(_cells(small, 0))].append(small)

    def discard(self, digest: str) -> None:
        """Forgets a record that was added."""
        talk, small = _parts(digest)
        self._known[talk, len(small), next(_cells(small, 0))].remove(small)


def digest_of(record: Record, images: Sequence[Image.Image]) -> str:
    """What `Copies` compares of a record: its pictures' fingerprints and, word for word, its conversation."""
    talk = hashlib.sha256(repr((record.system, record.turns)).encode()).hexdigest()[:32] if record.turns else ""
    return "".join(fingerprint(image).hex() for image in images) + TALK + talk


def fingerprint(image: Image.Image) -> bytes:
    """A picture's small version: brightness of 8 x 8 cells, then both colour channels (Cb, Cr) of 4 x 4 cells."""
    small = image.convert("RGB").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX).convert("YCbCr")
    grey, *colors = small.split()
    return b"".join(
        [grey.tobytes(), *(one.resize((COLOR_SIDE, COLOR_SIDE), Image.Resampling.BOX).tobytes() for one in colors)]
    )


def _parts(digest: str) -> tuple[str, bytes]:
    """A digest's conversation and its fingerprints; one of an earlier version is equal only to itself."""
    pictures, mark, talk = digest.rpartition(TALK)
    return (talk, bytes.fromhex(pictures)) if mark else (digest, b"")


def _cells(small: bytes, near: int) -> Iterator[tuple[int, ...]]:
    """The buckets in which fingerprints lie that are at most that near to the given ones: of the first picture's
    quarters. A quarter's mean moves by no more than its cells do.
    """
    if not small:
        return iter([()])
    grey = np.frombuffer(small, np.uint8, GREY_SIDE**2).reshape(2, GREY_SIDE // 2, 2, GREY_SIDE // 2).astype(float)
    quarters = grey.mean(axis=(1, 3)).flatten()
    return product(*({int((value - near) // BUCKET), int((value + near) // BUCKET)} for value in quarters))
