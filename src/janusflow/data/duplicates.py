"""Find copies of records: pictures that look alike up to scaling and recompression, and equal conversations.

A picture's fingerprint is a small version of the picture, and fingerprints are compared cell by cell. A hash whose bits
must be equal would miss a copy as soon as JPEG compression moved one value across the threshold of a bit. Compression
and scaling change a cell by a few values where the picture is smooth and by more at edges, so the tolerance is larger
there. A shape that is in only one of two pictures changes its cells by nearly its full contrast.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from PIL import Image

from janusflow.data.records import Record

SIDE, FINE = 8, 32  # cells per side of a fingerprint, and pixels per side of a cell before averaging
BYTES = 3 * SIDE**2
NEAR = 5  # of 255: largest difference of a cell between copies in a smooth area
EDGE = 0.15  # share of the contrast around a cell that is added to this tolerance
BUCKET, MOVED = (
    12,
    3,
)  # of 255: width of the buckets of mean values, and largest difference of a mean between copies
FEW = 13  # every 13th value is compared first: these lie in different cells and channels
TALK = ":"  # comes before the conversation in a digest


class Copies:
    """The kept records; `digest in copies` checks whether a record is a copy of one of them.

    They are put into buckets by the means of their first picture, so that a record is compared with only a few others.
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
            for every in (FEW, 1):  # a few cells rule out nearly all records, which matters in large buckets
                near = np.abs(found[:, ::every].astype(np.int16) - wanted[::every]) <= allowed[::every]
                found = found[near.all(axis=1)]
            if len(found):
                return True
        return False

    def add(self, digest: str) -> None:
        """Remember a record."""
        talk, small = _parts(digest)
        self._known[next(_buckets(talk, small, 0))].append(small)

    def discard(self, digest: str) -> None:
        """Forget a record that was added."""
        talk, small = _parts(digest)
        self._known[next(_buckets(talk, small, 0))].remove(small)


def digest_of(record: Record, images: Sequence[Image.Image]) -> str:
    """Return the digest that `Copies` compares: a record's picture fingerprints and its exact conversation."""
    talk = hashlib.sha256(repr((record.system, record.turns)).encode()).hexdigest()[:32] if record.turns else ""
    return "".join(fingerprint(image).hex() for image in images) + TALK + talk


def fingerprint(image: Image.Image) -> bytes:
    """Return a small version of a picture: Y, Cb and Cr of 8 x 8 cells, (8, 8, 3) bytes.

    Pillow's box filter takes whole pixels, so cells of only a few pixels would shift with the picture's size. A finer
    grid in between makes each cell the mean of its area.
    """
    fine = image.convert("RGB").resize((SIDE * FINE, SIDE * FINE), Image.Resampling.BOX)
    return fine.convert("YCbCr").reduce(FINE).tobytes()


def _parts(digest: str) -> tuple[str, bytes]:
    """Split a digest into conversation and fingerprints; a digest of an earlier version is equal only to itself."""
    pictures, mark, talk = digest.rpartition(TALK)
    known = mark and len(pictures) % (2 * BYTES) == 0
    return (talk, bytes.fromhex(pictures)) if known else (digest, b"")


def _allowed(small: bytes) -> np.ndarray:
    """Return the tolerance of each value of some fingerprints, (n 192,): larger where the values around it differ."""
    cells = np.frombuffer(small, np.uint8).reshape(-1, SIDE, SIDE, 3).astype(np.int16)
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    nine = np.stack([around[:, y : y + SIDE, x : x + SIDE] for y, x in product(range(3), repeat=2)])
    return (NEAR + EDGE * np.ptp(nine, axis=0)).ravel()


def _buckets(talk: str, small: bytes, moved: int) -> Iterator[bytes]:
    """Yield the buckets of records with this conversation and number of pictures whose means differ by at most `moved`.

    The means are the mean Y of each quarter of the first picture, and its mean Cb and Cr.
    """
    start = f"{talk}/{len(small)}/".encode()
    if not small:
        return iter([start])
    cells = np.frombuffer(small, np.uint8, BYTES).reshape(SIDE, SIDE, 3).astype(float)
    quarters = cells[..., 0].reshape(2, SIDE // 2, 2, SIDE // 2).mean(axis=(1, 3)).ravel()
    means = [*quarters, *cells[..., 1:].mean(axis=(0, 1))]
    either = [sorted({int((mean - moved) // BUCKET), int((mean + moved) // BUCKET)}) for mean in means]
    return (start + bytes(value + 1 for value in values) for values in product(*either))
