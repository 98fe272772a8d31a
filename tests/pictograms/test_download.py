"""Downloads: checked, resumed, retried, and errors in one sentence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from janusflow.pictograms.catalogue import NAMES, SOURCES, Package
from janusflow.pictograms.download import Downloads, default_cache, matches, registry_of
from tests.pictograms.conftest import integrity

CONTENT = bytes(range(256)) * 40
PACKAGE = Package("@set/icons", "1.0.0", integrity(CONTENT))


@dataclass
class Server:
    """A registry on this machine that answers as a test wants.

    Attributes:
        cuts: number of answers that end in the middle.
        status: of all answers, unless it is 200.
        content: of the file.
        ranges: that were asked for, "" for all of it.
    """

    cuts: int = 0
    status: int = 200
    content: bytes = CONTENT
    ranges: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.ranges.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, state.cuts = state.cuts > 0, state.cuts - 1
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{http.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield state
    http.shutdown()
    http.server_close()


def cache(folder: Path) -> Downloads:
    return Downloads(folder, wait=lambda seconds: None)


def test_a_package_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    file = cache(tmp_path).fetch(PACKAGE)
    assert file == tmp_path / "set-icons-1.0.0.tgz" and file.read_bytes() == CONTENT
    assert cache(tmp_path).fetch(PACKAGE) == file and server.ranges == [""]


def test_a_download_that_was_cut_off_continues_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert cache(tmp_path).fetch(PACKAGE).read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_a_later_run_continues_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".set-icons-1.0.0.tgz.part").write_bytes(CONTENT[:100])
    assert cache(tmp_path).fetch(PACKAGE).read_bytes() == CONTENT
    assert server.ranges == ["bytes=100-"]
    assert {file.name for file in tmp_path.iterdir()} <= {"set-icons-1.0.0.tgz", ".lock"}


def test_what_is_wrong_at_the_start_is_downloaded_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".set-icons-1.0.0.tgz.part").write_bytes(b"x" * len(CONTENT))
    assert cache(tmp_path).fetch(PACKAGE).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set-icons-1.0.0.tgz").write_bytes(b"damaged")
    assert cache(tmp_path).fetch(PACKAGE).read_bytes() == CONTENT


def test_another_content_than_the_pinned_one_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(ValueError, match=r"is not @set/icons 1\.0\.0 as it was pinned.*npm_config_registry"):
        cache(tmp_path).fetch(PACKAGE)
    assert not list(tmp_path.glob("*.tgz"))


def test_a_missing_package_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ValueError, match=r"cannot be downloaded \(HTTP 404\)") as caught:
        cache(tmp_path).fetch(PACKAGE)
    assert len(server.ranges) == 1 and "set-icons-1.0.0.tgz" in str(caught.value) and "\n" not in str(caught.value)


def test_a_failing_registry_is_tried_again_with_longer_waits(server: Server, tmp_path: Path) -> None:
    server.status = 503
    waits: list[float] = []
    with pytest.raises(ValueError, match="HTTP 503"):
        Downloads(tmp_path, wait=waits.append).fetch(PACKAGE)
    assert len(server.ranges) == 4 and waits == [1.0, 2.0, 4.0]


def test_debian_packages_have_a_mirror_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://npm.test/")
    monkeypatch.setenv("DEBIAN_MIRROR", "http://debian.test/debian")
    clips = next(source.package for source in SOURCES if source.package.registry == "debian")
    assert registry_of(clips) == "http://debian.test/debian" and registry_of(NAMES) == "http://npm.test"
    assert NAMES.address == "emojibase-data/-/emojibase-data-17.0.0.tgz"
    assert PACKAGE.address == "@set/icons/-/icons-1.0.0.tgz"


def test_digests_are_npms_or_debians(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert matches(file, "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert matches(file, integrity(b"")) and not matches(file, PACKAGE.integrity)


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/janusflow/pictograms")
