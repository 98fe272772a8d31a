"""Fetch pinned packages over HTTPS into a cache; resume and retry downloads, and check their digests."""

from __future__ import annotations

import base64
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from janusflow.arguments import quoted
from janusflow.files import locked
from janusflow.pictograms.catalogue import Package

REGISTRIES = {"npm": "https://registry.npmjs.org", "debian": "https://deb.debian.org/debian"}
VARIABLES = {"npm": "npm_config_registry", "debian": "DEBIAN_MIRROR"}
CHUNK = 2**20
SECONDS = 60.0  # timeout without any answer
ATTEMPTS = 4
LOST = (404, 410)  # HTTP statuses that a retry does not change


class WrongContentError(ValueError):
    """Raised for a complete file whose digest is not the pinned one."""


def default_cache() -> Path:
    """Return the folder for packages: `janusflow/pictograms` in `XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "janusflow" / "pictograms"


def registry_of(package: Package) -> str:
    """Return the address of a package's registry: `npm_config_registry` or `DEBIAN_MIRROR`, or the public one."""
    return (os.environ.get(VARIABLES[package.registry]) or REGISTRIES[package.registry]).rstrip("/")


@dataclass(frozen=True)
class Downloads:
    """A cache of packages.

    Attributes:
        cache: folder of the cache.
        attempts: number of attempts per file.
        wait: function that sleeps for a number of seconds.

    Example:
        >>> Downloads(Path("cache")).fetch(NAMES)  # doctest: +SKIP
        PosixPath('cache/emojibase-data-17.0.0.tgz')
    """

    cache: Path
    attempts: int = ATTEMPTS
    wait: Callable[[float], None] = time.sleep

    def fetch(self, package: Package) -> Path:
        """Return the file of a package, and download it if it is not in the cache.

        An interrupted download continues where it stopped.

        Raises:
            ValueError: if the file cannot be downloaded, or the downloaded file has another digest.
            OSError: if the cache cannot be written.
        """
        final = self.cache / package.file
        self.cache.mkdir(parents=True, exist_ok=True)
        with locked(self.cache / ".lock", f"{self.cache} is in use by another build", patience=3600):
            if final.is_file():
                if matches(final, package.integrity):
                    return final
                final.unlink()  # damaged after it was written
            part = final.with_name(f".{final.name}.part")
            self._download(package, part)
            part.replace(final)
        return final

    def _download(self, package: Package, part: Path) -> None:
        address = f"{registry_of(package)}/{package.address}"
        for attempt in range(self.attempts):
            last = attempt == self.attempts - 1
            try:
                _append(address, part)
                if matches(part, package.integrity):
                    return
                part.unlink()
                if last:
                    raise WrongContentError(
                        f"{address} is not {package.name} {package.version} as it was pinned: its digest differs; "
                        f"check the registry in {VARIABLES[package.registry]}"
                    )
            except (OSError, HTTPException) as error:
                if last or (isinstance(error, urllib.error.HTTPError) and error.code in LOST):
                    variable = VARIABLES[package.registry]
                    raise ValueError(
                        f"{address} cannot be downloaded ({_reason(error)}); check the network, or set {variable} to a "
                        f"mirror, or put the file into {quoted(str(part.parent))} as {package.file}"
                    ) from error
            self.wait(2.0**attempt)


def _append(address: str, part: Path) -> None:
    """Download the missing part of a file.

    Raises:
        OSError, HTTPException: if the download fails; the part received until then is kept.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            left = int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if have and answer.status == 206 else "wb") as file:
                while chunk := answer.read(CHUNK):
                    left -= file.write(chunk)
        if left > 0:  # `read` with a size does not report it
            raise ConnectionError("the connection ended early")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the file is complete or too long, which its digest shows
            raise


def matches(file: Path, integrity: str) -> bool:
    """Return whether a file has the given digest, written as in `Package.integrity`."""
    kind, _, expected = integrity.partition("-")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, kind)
    return expected in (digest.hexdigest(), base64.b64encode(digest.digest()).decode())


def _reason(error: BaseException) -> str:
    """Return why a request failed, in a few words."""
    inner = getattr(error, "reason", None)
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(inner, "strerror", None) or inner or error) or type(error).__name__
