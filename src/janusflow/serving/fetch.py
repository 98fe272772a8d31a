"""Fetch a picture that a client gives by address, from public addresses only.

The host name is resolved here, every address is checked, and the connection goes to the checked address, so that no
second lookup can return another one. Redirects are followed by hand, so that each one is checked as well.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import httpcore2

from janusflow.arguments import quoted
from janusflow.serving.errors import ApiError, invalid
from janusflow.serving.settings import Limits

REDIRECTS = (301, 302, 303, 307, 308)
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits
LOCAL_TRANSLATED = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215; public to Python's `is_global` before 3.11.10
HEADERS = [("User-Agent", "janusflow"), ("Accept", "image/*"), ("Accept-Encoding", "identity")]
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: str) -> bool:
    """Return whether an address is on the public internet, however it is written or wrapped."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in TRANSLATED:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found in LOCAL_TRANSLATED:
            return False
    return found.is_global and not found.is_multicast


class _RefusedError(Exception):
    """Raised for a connection to an address that is not public."""


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Network backend that resolves and checks addresses before it connects.

    Args:
        resolve: returns the addresses of a host.
        allowed: returns whether it may connect to an address.
    """

    def __init__(self, resolve: Resolve, allowed: Callable[[str], bool]) -> None:
        self.resolve, self.allowed = resolve, allowed
        self.plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self.resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        if not addresses or not all(map(self.allowed, addresses)):
            raise _RefusedError
        return await self.plain.connect_tcp(addresses[0], port, timeout, local_address, socket_options)


class Fetcher:
    """Fetch pictures by address.

    Args:
        limits: limits of size, time and redirects.
        resolve: returns the addresses of a host; for tests.
        allowed: returns whether it may connect to an address; for tests.
    """

    def __init__(self, limits: Limits, resolve: Resolve = resolve, allowed: Callable[[str], bool] = is_public) -> None:
        self.limits, self.resolve, self.allowed = limits, resolve, allowed

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at an address.

        Raises:
            ApiError: if the address is not public, cannot be fetched or is too slow, or the data is too large.
        """
        try:
            async with asyncio.timeout(self.limits.fetch_seconds):
                return await self._follow(url)
        except TimeoutError as error:
            raise self._error(url, f"did not answer within {self.limits.fetch_seconds:g} s") from error
        except _RefusedError as error:
            raise self._error(url, "is not a public address; send the picture as a data URI") from error
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, ValueError) as error:
            raise self._error(url, "cannot be fetched") from error

    async def _follow(self, url: str) -> bytes:
        place = url
        for _ in range(self.limits.fetch_redirects + 1):
            if not place.isascii():
                raise self._error(url, "has characters outside ASCII; percent-encode them")
            if urlsplit(place).scheme not in ("http", "https"):
                raise self._error(url, "is not an http or https address")
            backend = _CheckedBackend(self.resolve, self.allowed)
            async with (
                httpcore2.AsyncConnectionPool(network_backend=backend) as pool,
                pool.stream("GET", place, headers=HEADERS) as response,
            ):
                if response.status in REDIRECTS:
                    location = dict(response.headers).get(b"location") or dict(response.headers).get(b"Location")
                    if location is None:
                        raise self._error(url, "redirects to nowhere")
                    place = urljoin(place, location.decode("latin-1"))
                    continue
                if response.status != 200:
                    raise self._error(url, f"answered with status {response.status}")
                return await self._read(url, response)
        raise self._error(url, f"redirects more than {self.limits.fetch_redirects} times")

    async def _read(self, url: str, response: httpcore2.Response) -> bytes:
        data = bytearray()
        async for part in response.aiter_stream():
            data += part
            if len(data) > self.limits.fetch_bytes:
                raise self._error(url, f"has more than {self.limits.fetch_bytes} bytes")
        return bytes(data)

    def _error(self, url: str, reason: str) -> ApiError:
        return invalid(f"image_url {quoted(url)} {reason}", "messages", "invalid_image_url")
