"""`janusflow serve`: its options, and how the process ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.serving.command import ServeOptions, checked_settings, read_limits, run_command
from janusflow.serving.keys import VARIABLE, ApiKeys
from janusflow.serving.policy import PolicySettings
from janusflow.serving.server import check_host, run
from janusflow.serving.settings import Limits
from tests.serving.conftest import until

PLAIN: dict[str, Any] = {"model": "/no/weights", "name": None, "adapters": [], "host": "127.0.0.1", "port": 0}
PLAIN |= {"api_key_file": None, "queue": {}, "policy": {}, "limits": [], "grace": 1.0, "page": False, "opening": {}}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_no_key(host: str) -> None:
    check_host(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", "", "localhost.example.org"])
def test_other_addresses_need_one(host: str) -> None:
    with pytest.raises(ValueError, match="--api-key-file FILE or set JANUSFLOW_API_KEYS"):
        check_host(host, None)
    check_host(host, ApiKeys(["a-key-of-the-tests-0123"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "0.0.0.0"}, "others can reach"),
        ({"limits": ["max_step=5"]}, "did you mean max_steps"),
        ({"limits": ["max_steps=many"]}, "expected a number"),
        ({"limits": ["max_steps=0"]}, "max_steps is 0"),
        ({"limits": ["max_n=65"]}, "max_queue is 64"),
        ({"limits": ["timeout=inf"]}, "timeout is inf"),
        ({"policy": {"picture_share": 1.5}}, "picture_share is 1.5"),
        ({"policy": {"max_text_wait": 0}}, "max_text_wait is 0"),
        ({"queue": {"max_queue": 0}}, "max_queue is 0"),
        ({"adapters": ["mine"]}, "NAME=FOLDER"),
        ({"adapters": ["mine=/nowhere"]}, "adapter mine is '/nowhere', which is not a folder"),
        ({"api_key_file": Path("/nowhere")}, "No such file"),
    ],
)
def test_options_are_checked_before_weights_are_loaded(
    change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises((ValueError, OSError), match=reason):
        run_command(ServeOptions(**{**PLAIN, **change}))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--replicas", "2"], "--ray-address, --replica-cpus and --replica-gpus need --ray"),
        (["--replica-cpus", "2"], "need --ray"),
        (["--name", ""], "name is empty"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["serve", *words])
    assert result.exit_code == 2 and reason in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (".", "mine"),
        ("..", "runs"),
        ("inner/..", "mine"),
        ("../latest/", "latest"),
        ("~/runs/mine", "mine"),
        ("~", "home"),
        ("tiny", "tiny"),
        ("deepseek-ai/JanusFlow-1.3B", "JanusFlow-1.3B"),
    ],
)
def test_a_model_without_a_name_has_that_of_its_folder(
    model: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home/runs/mine"
    folder.mkdir(parents=True)
    (folder.parent / "latest").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    assert ServeOptions(**{**PLAIN, "model": model}).served_name == expected
    assert ServeOptions(**{**PLAIN, "model": model, "name": "given"}).served_name == "given"


def test_settings_are_read_as_numbers() -> None:
    assert read_limits(["max_steps=50", "fetch_seconds=2.5"]) == {"max_steps": 50, "fetch_seconds": 2.5}
    assert checked_settings(PolicySettings, {"picture_share": 1}).picture_share == 1.0
    assert checked_settings(Limits, read_limits(["requests_per_minute=none"])).requests_per_minute is None


def test_a_port_that_is_taken_is_reported_before_weights_are_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on port {port} of 127.0.0.1: .*; choose another --port"):
            run_command(ServeOptions(**{**PLAIN, "host": "127.0.0.1", "port": port, "model": "nowhere"}))


def test_sigterm_finishes_accepted_work_and_exits_with_0() -> None:
    command = [sys.executable, "-m", "janusflow", "serve", "--port", "0", "--device", "cpu", "--name", "shown"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                url = found[1]
                break
        assert url
        answers: list[httpx2.Response] = []

        def ask() -> None:
            body = {"model": "shown", "prompt": "a red circle", "num_inference_steps": 30, "seed": 0}
            answers.append(httpx2.post(f"{url}/v1/images/generations", json=body, timeout=60))

        thread = threading.Thread(target=ask)
        with httpx2.Client(base_url=url, timeout=30) as http:
            thread.start()
            until(lambda: 'janusflow_running_jobs{kind="picture"} 1.0' in http.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            until(lambda: http.get("/health/ready").status_code == 503)
            refused = http.post("/v1/images/generations", json={"prompt": "a star"})
        thread.join()
        log = process.stderr.read()
        assert process.wait(30) == 0, log
        assert refused.status_code == 503 and refused.headers["Retry-After"]
        assert answers[0].status_code == 200 and answers[0].json()["data"][0]["b64_json"]
        assert answers[0].headers["x-request-id"] in log


def test_a_server_whose_work_has_ended_exits_with_1() -> None:
    work = SimpleNamespace(alive=False, draining=True, unfinished=0, start=lambda: None, close=lambda: None)
    with pytest.raises(SystemExit) as ended:
        run(lambda *_: None, work, Limits(), host="127.0.0.1", port=0, grace=1.0)  # type: ignore[arg-type]
    assert ended.value.code == 1
