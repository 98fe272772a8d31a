"""Replica of `janusflow serve --ray`: the application of a single process, called through Ray instead of a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve

from janusflow.pipelines.base import Pipeline
from janusflow.serving.app import create_app
from janusflow.serving.models import with_adapters
from janusflow.serving.policy import PolicySettings
from janusflow.serving.runner import PipelineRunner, give_cores, keep_loaded
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.settings import Limits

ADAPTERS = 8  # adapters that a replica keeps in memory at the same time
GRACE = 60.0  # seconds that a replica gets for its work when it is stopped
BUSY = 8  # requests in progress per replica above which more replicas are started


@dataclass(frozen=True)
class ReplicaOptions:
    """Options of a replica.

    Attributes:
        model: "tiny", a folder or a hub id, readable on every machine.
        name: name that clients use.
        adapters: adapter folders by name.
        opening: further arguments for `Pipeline.from_pretrained`.
        queue, policy, limits: settings of a server.
        page: whether `/` shows the page.
    """

    model: str
    name: str
    adapters: Mapping[str, Path]
    opening: Mapping[str, Any]
    queue: QueueSettings
    policy: PolicySettings
    limits: Limits
    page: bool = False


class LazyModels(Mapping[str, Pipeline]):
    """Models by name; adapters are read when they are first used.

    Args:
        name: name of the model without adapters.
        model: the opened pipeline.
        adapters: adapter folders by name.
    """

    def __init__(self, name: str, model: Pipeline, adapters: Mapping[str, Path]) -> None:
        self.name, self.model = name, model
        self.folders = {f"{name}:{own}": (own, folder) for own, folder in adapters.items()}
        self.loaded: dict[str, Pipeline] = {name: model}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Pipeline:
        with self._lock:
            if name not in self.loaded:
                own, folder = self.folders[name]
                self.loaded[name] = with_adapters(self.name, self.model, {own: folder})[name]
            return self.loaded[name]

    def __contains__(self, name: object) -> bool:
        return name == self.name or name in self.folders

    def __iter__(self) -> Iterator[str]:
        return iter((self.name, *self.folders))

    def __len__(self) -> int:
        return 1 + len(self.folders)

    def unload(self, name: str) -> Pipeline | None:
        """Forget adapters; requests that use them keep them until they end."""
        with self._lock:
            return self.loaded.pop(name, None)


class _Loaded:
    """Adapters that Ray counts; unloaded when Ray drops this object."""

    def __init__(self, replica: Replica, name: str) -> None:
        self.replica, self.name = replica, name

    def __del__(self) -> None:
        self.replica.unload(self.name)


class Replica:
    """A model and its scheduler.

    Args:
        options: options of the replica.
    """

    def __init__(self, options: ReplicaOptions) -> None:
        self.runner = PipelineRunner()
        self.scheduler = Scheduler(self.runner, options.queue, options.policy)
        self.scheduler.start()
        give_cores(self.scheduler.call)
        model = self.scheduler.call(partial(Pipeline.from_pretrained, options.model, **options.opening))
        self.scheduler.call(model.identity)  # opens the VAE now, not with the first request
        self.models = LazyModels(options.name, model, options.adapters)
        self.app = create_app(self.models, self.scheduler, limits=options.limits, page=options.page)
        keep_loaded()

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """Yield the ASGI messages that answer a request; when the caller stops listening, its jobs are cancelled."""
        name = serve.get_multiplexed_model_id()
        if name in self.models.folders:
            await self.adapter(name)
        messages, gone = asyncio.Queue[dict[str, Any] | None](), asyncio.Event()
        arriving = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if arriving:
                return arriving.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self.app(scope, receive, messages.put)  # type: ignore[arg-type]
            finally:
                messages.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
            await running
        finally:
            gone.set()

    @serve.multiplexed(max_num_models_per_replica=ADAPTERS)
    async def adapter(self, name: str) -> _Loaded:
        """Read adapters unless they are loaded. Ray sends further requests for them to this replica."""
        read = partial(self.models.__getitem__, name)
        await asyncio.to_thread(self.scheduler.call, read)
        return _Loaded(self, name)

    def unload(self, name: str) -> None:
        """Free the least recently used adapters."""
        if (model := self.models.unload(name)) is not None:
            self.runner.forget(model)

    def check_health(self) -> None:
        """Raise an error if the model's thread has ended, so that Ray replaces the replica."""
        if not self.scheduler.alive:
            raise RuntimeError("the model's thread has ended")


def deploy(options: ReplicaOptions, *, replicas: int, most: int, cpus: float, gpus: float) -> Any:
    """Start the replicas on the cluster that `ray.init` connected to, and return their handle.

    Args:
        options: options of each replica.
        replicas: smallest number of replicas.
        most: largest number; more than `replicas` are started while each has more than 8 requests in progress.
        cpus, gpus: CPU cores and GPUs that Ray reserves for each.
    """
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if most > replicas:
        limits = {"min_replicas": replicas, "max_replicas": most, "target_ongoing_requests": BUSY}
        scaling = {"autoscaling_config": limits}
    queue = options.queue
    deployment: Any = serve.deployment(
        name="janusflow",
        max_ongoing_requests=2 * (2 * queue.max_queue + queue.max_pictures + queue.max_texts),  # its scheduler refuses
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        graceful_shutdown_timeout_s=GRACE,
        health_check_period_s=5,
        **scaling,
    )(Replica)
    serve.start(proxy_location="Disabled")  # the front answers HTTP
    return serve.run(deployment.bind(options), name="janusflow", route_prefix=None)
