"""Two replicas on a Ray of this machine: one that dies costs no accepted request."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.serving.gate import Gate
from janusflow.serving.keys import ApiKeys
from janusflow.serving.policy import PolicySettings
from janusflow.serving.scheduler import QueueSettings
from janusflow.serving.server import DrainingServer, uvicorn_config
from tests.serving.conftest import KEY, LIMITS, until
from tests.serving.test_models import save_adapter

ray = pytest.importorskip("ray", reason='pip install "janusflow[ray]"')
serve = pytest.importorskip("ray.serve", reason='pip install "janusflow[ray,serve]"')

from janusflow.serving.front import Front  # noqa: E402
from janusflow.serving.replica import LazyModels, ReplicaOptions, deploy  # noqa: E402

PROMPTS = ("a red circle", "three stars")


def replicas() -> list[Any]:
    """The actors of the replicas that are alive."""
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    return [ray.get_actor(name, namespace="serve") for name in names if "#janusflow#" in name]


@pytest.fixture(scope="module")
def adapter(tiny_model: JanusFlow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_model, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def front(adapter: Path) -> Iterator[str]:
    """The address of a front with two replicas."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    queue = QueueSettings(max_queue=32, max_pictures=4)
    opening = {"device": "cpu"}
    options = ReplicaOptions("tiny", "tiny", {"mine": adapter}, opening, queue, PolicySettings(), LIMITS)
    own = Front(deploy(options, replicas=2, most=2, cpus=1, gpus=0))
    app = Gate(own, LIMITS, ApiKeys([KEY]), own.metrics)
    listening = socket.create_server(("127.0.0.1", 0))
    server = DrainingServer(uvicorn_config(app, LIMITS), own, grace=20)
    thread = threading.Thread(target=asyncio.run, args=(server.run_until_stopped(listening),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.handle_exit(15, None)
        thread.join()
        listening.close()
        ray.shutdown()


@pytest.fixture
def http(front: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=front, headers={"Authorization": f"Bearer {KEY}"}, timeout=240) as client:
        yield client


def generated(answer: httpx2.Response) -> np.ndarray:
    """The picture of an answer."""
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))


def test_replicas_answer_as_one_process_does(http: httpx2.Client, tiny_model: JanusFlow) -> None:
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["tiny", "tiny:mine"]
    bodies = [
        {"prompt": PROMPTS[0], "seed": 3, "num_inference_steps": 3, "model": name} for name in ("tiny", "tiny:mine")
    ]
    plain, adapted = (generated(http.post("/v1/images/generations", json=body)) for body in bodies)
    expected = tiny_model.generate(PROMPTS[0], seed=3, num_inference_steps=3, progress=False)[0]
    assert np.abs(plain.astype(int) - np.asarray(expected, int)).max() <= 1
    assert (plain != adapted).any()
    refused = http.post("/v1/images/generations", json={"prompt": "x", "quality": "none"})
    assert refused.status_code == 400 and refused.headers["x-request-id"].startswith("req_")
    assert httpx2.get(f"{http.base_url}/v1/models").status_code == 401


def test_a_replica_that_dies_under_load_loses_no_accepted_request(http: httpx2.Client, tiny_model: JanusFlow) -> None:
    bodies = [{"prompt": PROMPTS[seed % 2], "seed": seed, "num_inference_steps": 40} for seed in range(8)]
    until(lambda: len(replicas()) == 2, 120)
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(http.post, "/v1/images/generations", json=body) for body in bodies]
        until(lambda: sum(one.done() for one in answers) >= 1, 120)
        ray.kill(replicas()[0])
        found = [generated(one.result()) for one in answers]
    for body, picture in zip(bodies, found, strict=True):
        settings = {"seed": body["seed"], "num_inference_steps": 40, "progress": False}
        expected = tiny_model.generate(str(body["prompt"]), **settings)[0]  # type: ignore[arg-type]
        assert np.abs(picture.astype(int) - np.asarray(expected, int)).max() <= 1


def test_a_stream_whose_replica_dies_ends_with_an_error(http: httpx2.Client) -> None:
    until(lambda: len(replicas()) == 2, 120)
    body = {"prompt": PROMPTS[0], "num_inference_steps": 60, "stream": True, "partial_images": 3}
    lines: list[str] = []
    with http.stream("POST", "/v1/images/generations", json=body) as stream:
        for line in stream.iter_lines():
            if line and not lines:
                for actor in replicas():
                    ray.kill(actor)
            lines += [line] if line else []
    events = [line for line in lines if line.startswith("event: ")]
    assert events[0] == "event: image_generation.partial_image"
    assert events[-1] == "event: error" and "died" in lines[-1]


def test_adapters_are_read_when_they_are_used_first(small_model: JanusFlow, tmp_path: Path) -> None:
    models = LazyModels("small", small_model, {"mine": save_adapter(small_model, tmp_path)})
    assert list(models) == ["small", "small:mine"] and "small:mine" in models and "other" not in models
    assert list(models.loaded) == ["small"]
    adapted = models["small:mine"]
    assert models["small:mine"] is adapted and adapted is not small_model
    models.unload("small:mine")
    assert models["small:mine"] is not adapted
    assert serve.get_multiplexed_model_id() == ""
