"""Without a network whatever has to be fetched fails at once, in one sentence; a bad connection keeps its retries."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from transformers import SiglipVisionModel

from janusflow import JanusFlow
from janusflow.checkpoint import find_folder
from janusflow.checkpoint.adapters import open_adapters
from janusflow.data.sources import file_config
from janusflow.evaluation.judges.open_judge import open_judge
from janusflow.evaluation.vision.clip import Clip
from janusflow.evaluation.vision.detection import Detector
from janusflow.offline import cached_if_unreachable, hub_is_reachable
from janusflow.training.start import open_part
from janusflow.vae import LatentCodec, vae_weights

UNREACHABLE = "the hub cannot be reached"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Every look-up of a name fails as on a machine without a network; the pauses between tries are noted."""
    pauses: list[float] = []

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return pauses


def open_codec() -> Any:
    return LatentCodec.from_pretrained("some/vae", dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: JanusFlow.from_pretrained("some/model"), "model 'some/model' is neither"),
        (open_codec, "vae is 'some/vae'"),
        (lambda: open_adapters(torch.nn.Identity(), "some/adapter"), "adapter 'some/adapter' is neither"),  # type: ignore[arg-type]
        (lambda: file_config("hub", "some/pictures").rows(), "some/pictures cannot be read as hub"),
        (lambda: open_part(SiglipVisionModel, "some/tower", "model.tower"), "model.tower is 'some/tower'"),
        (lambda: Clip.open("some/clip"), "CLIP model 'some/clip'"),
        (lambda: Detector.open("some/detector", []), "detector 'some/detector'"),
        (lambda: open_judge("some/judge"), "judge 'some/judge'"),
    ],
)
def test_an_id_that_cannot_be_fetched_fails_at_once(
    no_network: list[float], capfd: pytest.CaptureFixture[str], call: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "reached" in str(caught.value) or "connect" in str(caught.value)
    assert not no_network, "it was tried again"
    assert "Retrying" not in capfd.readouterr().err
    assert not constants.HF_HUB_OFFLINE


def test_weights_of_a_vae_that_cannot_be_fetched_are_none(no_network: list[float]) -> None:
    assert vae_weights("some/vae") == [] and not no_network


def test_offline_mode_is_respected_and_named(no_network: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("janusflow.offline.get_session", lambda: pytest.fail("a request was made"))
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        find_folder("some/model")
    assert constants.HF_HUB_OFFLINE


def test_what_is_in_the_cache_opens_without_a_network(
    no_network: list[float], vae_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "cache" / "models--some--vae"
    shutil.copytree(vae_folder, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    assert open_codec().channels == 4 and not no_network


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_a_hub_that_answers_anything_is_reachable(local: Callable[[int], None]) -> None:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.handle_request, daemon=True).start()
    local(server.server_port)
    assert hub_is_reachable()
    server.server_close()


def test_a_slow_hub_is_reachable_and_a_closed_port_is_not(
    local: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.offline.SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connects, and never answers
        port = listening.getsockname()[1]
        local(port)
        assert hub_is_reachable()
    assert not hub_is_reachable()
    with cached_if_unreachable("some/model") as why:
        assert constants.HF_HUB_OFFLINE and why == UNREACHABLE
    with cached_if_unreachable(Path(__file__)) as why:
        assert not constants.HF_HUB_OFFLINE and why == ""
