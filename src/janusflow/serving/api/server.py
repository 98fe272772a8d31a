"""State that the handlers share: the models, the scheduler, the limits and the fetcher."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

from fastapi import Request

from janusflow.arguments import shortened
from janusflow.pipelines.base import Pipeline
from janusflow.serving.api.body import Job
from janusflow.serving.errors import ApiError, invalid
from janusflow.serving.fetch import Fetcher
from janusflow.serving.scheduler import Scheduler
from janusflow.serving.settings import Limits

READERS = 2  # requests whose pictures are decoded at the same time; eight of 20 megapixels take 1 GB
EDITING = ("image", "mask", "strength", "paste_original", "image_guidance_scale")


@dataclass
class Server:
    """State of one server.

    Attributes:
        models: pipelines by the names that clients use; the first is the default.
        scheduler: scheduler that owns the models.
        limits: limits of a request.
        fetcher: fetches pictures that are given by address.
        created: when the server started, in seconds since 1970.
        reading: held while a request's pictures are in memory at full size.
    """

    models: Mapping[str, Pipeline]
    scheduler: Scheduler
    limits: Limits
    fetcher: Fetcher
    created: int = 0
    reading: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, READERS))

    def model(self, name: str | None) -> tuple[str, Pipeline]:
        """Return the name of a model, and the model.

        Raises:
            ApiError: if no model has that name.
        """
        chosen = next(iter(self.models)) if name is None else name
        self.check_model(chosen)
        return chosen, self.models[chosen]

    def check_model(self, name: str) -> None:
        """Refuse a name that no model has, without reading adapters.

        Raises:
            ApiError: if no model has that name; lists the models.
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404,
                f"model {shortened(repr(name))} is not served here; there are {known}",
                param="model",
                code="model_not_found",
            )

    def timeout(self, body: Job, arrived: float) -> float:
        """Return the seconds until a request fails that arrived at a time of `time.monotonic`."""
        whole = self.limits.timeout if body.timeout is None else min(body.timeout, self.limits.timeout)
        return whole - (time.monotonic() - arrived)

    def check_most(self, name: str, value: int, most: int) -> None:
        """Refuse a value above a limit of this server.

        Raises:
            ApiError: if the value is refused; names both.
        """
        if value > most:
            raise invalid(f"{name} is {value}; this server allows at most {most}", name)


def settings_of(model: Pipeline) -> dict[str, Any]:
    """Return the `generate` arguments that picture requests may set, with defaults; None if these depend on others."""
    known = signature(model.generate).parameters
    names = [name for name in (*model.sampling, "height", "width", *EDITING) if name in known]
    return {**dict.fromkeys(names), **model.complete({})}


def seed_of(http: Request, seed: int | None) -> int:
    """Return a request's seed, or else one from the request's id, so that a second attempt has the same seed.

    Args:
        http: the request.
        seed: seed that the request names.
    """
    if seed is not None:
        return seed
    return int.from_bytes(hashlib.sha256(http.state.request_id.encode()).digest()[:4])


def server_of(http: Request) -> Server:
    """Return the server that a request came to."""
    found: Server = http.app.state.server
    return found
