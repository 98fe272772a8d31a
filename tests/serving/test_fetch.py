"""Pictures with an address are fetched from public addresses only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from janusflow.serving.errors import ApiError
from janusflow.serving.fetch import Fetcher, is_public
from janusflow.serving.settings import Limits

LIMITS = Limits(fetch_bytes=1000, fetch_seconds=0.5, fetch_redirects=2)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_addresses_of_the_public_internet_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::1", "not an address",
    ],
)  # fmt: skip
def test_private_loopback_and_link_local_addresses_are_not(address: str) -> None:
    assert not is_public(address)


class Pages(BaseHTTPRequestHandler):
    """What the test's server has."""

    wait = threading.Event()
    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/slow":
            self.wait.wait(5)
        else:
            size = 2000 if self.path == "/large" else 10
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            self.wfile.write(b"x" * size)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    Pages.wait.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Names:
    """A name server: `inside` is a private address, everything else the test's server."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return ["10.0.0.1"] if host == "inside" else ["127.0.0.1"]


def fetched(url: str, names: Names | None = None) -> bytes:
    fetcher = Fetcher(LIMITS, (names or Names()).resolve, allowed=lambda address: address == "127.0.0.1")
    return asyncio.run(fetcher.fetch(url))


def test_the_connection_goes_to_the_address_that_was_checked(port: int) -> None:
    names = Names()
    assert fetched(f"http://pictures.example:{port}/a.png", names) == b"x" * 10
    assert names.asked == ["pictures.example"]


def test_redirects_are_followed_and_each_is_checked(port: int) -> None:
    assert fetched(f"http://a.example:{port}/to//b.png") == b"x" * 10
    seen = len(Pages.seen)
    with pytest.raises(ApiError, match="not a public address"):
        fetched(f"http://a.example:{port}/to/http://inside/latest/meta-data")
    with pytest.raises(ApiError, match="not an http"):
        fetched(f"http://a.example:{port}/to/file:///etc/passwd")
    assert len(Pages.seen) == seen + 2


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/large", "more than 1000 bytes"),
        ("/slow", "did not answer within 0.5 s"),
        ("/loop", "redirects more than 2 times"),
        ("/missing", "status 404"),
    ],
)
def test_what_is_too_large_slow_or_missing_is_refused(port: int, path: str, reason: str) -> None:
    with pytest.raises(ApiError, match=reason):
        fetched(f"http://a.example:{port}{path}")


@pytest.mark.parametrize(
    "url",
    [
        "http://inside/a.png",
        "http://a.example:1/a.png",
        "http://",
        "http://[::1",
        "http://a:x/",
        "http://a.example/\u00e4.png",
        "http://b\u00fccher.example/",
        "http://a.example/\ud800",
    ],
)
def test_other_addresses_are_one_sentence(url: str) -> None:
    with pytest.raises(ApiError, match="image_url"):
        fetched(url)


def test_the_default_refuses_this_machine(port: int) -> None:
    with pytest.raises(ApiError, match="not a public address"):
        asyncio.run(Fetcher(LIMITS).fetch(f"http://localhost:{port}/a.png"))
