"""API keys, stored as hashes, and a rate limit for each."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

VARIABLE = "JANUSFLOW_API_KEYS"
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
SHORTEST = 16  # characters of a key


class ApiKeys:
    """Accepted API keys.

    Only their SHA-256 hashes are stored. Keys are random, so a plain hash cannot be reversed.

    Args:
        lines: keys, or `sha256:` and the 64 hexadecimal digits of a key's hash; empty lines and lines that begin with
            # are skipped.

    Raises:
        ValueError: if a key is too short; the message does not contain the key.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.hashes: list[bytes] = []
        for number, line in enumerate(lines, start=1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            if found := HASHED.fullmatch(key):
                self.hashes.append(bytes.fromhex(found[1]))
            elif key.startswith("sha256:"):
                raise ValueError(f"API key {number} begins with sha256: and continues with other than 64 hex digits")
            elif len(key) < SHORTEST:
                raise ValueError(f"API key {number} has {len(key)} characters; expected at least {SHORTEST}")
            else:
                self.hashes.append(_hash(key))

    @classmethod
    def read(cls, file: Path | None) -> ApiKeys | None:
        """Read keys from a file, or else from the environment variable `JANUSFLOW_API_KEYS`; None if there are none.

        Raises:
            ValueError: if the file contains no key.
            OSError: if the file cannot be read.
        """
        if file is None:
            text = os.environ.get(VARIABLE)
            return None if text is None else cls._some(text.replace(",", "\n"), VARIABLE)
        try:
            text = file.read_text(encoding="utf-8-sig")  # Windows editors add a byte order mark
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not a text file; expected one API key a line") from error
        return cls._some(text, str(file))

    @classmethod
    def _some(cls, text: str, place: str) -> ApiKeys:
        keys = cls(text.splitlines())
        if not keys.hashes:
            how = "separate several by commas" if place == VARIABLE else "write one a line"
            raise ValueError(f"{place} holds no API key; {how}, of at least {SHORTEST} characters each")
        return keys

    def find(self, key: str) -> int | None:
        """Return the index of a key, or None if it is not accepted. All keys are compared, each in constant time."""
        digest, found = _hash(key), None
        for number, known in enumerate(self.hashes):
            if hmac.compare_digest(digest, known):
                found = number
        return found


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimit:
    """Token bucket for each client: `per_minute` requests, all at once or spread out.

    Args:
        per_minute: requests per minute; None is unlimited.
        clock: returns the time in seconds; for tests.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self.buckets: dict[int, tuple[float, float]] = {}  # requests left, and the time of that count

    def take(self, client: int) -> float:
        """Take one request of a client; return 0, or the seconds until one is available again."""
        if self.per_minute is None:
            return 0.0
        now, rate = self.clock(), self.per_minute / 60
        left, then = self.buckets.get(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * rate)
        allowed = left >= 1
        self.buckets[client] = (left - 1 if allowed else left, now)
        return 0.0 if allowed else (1 - left) / rate
