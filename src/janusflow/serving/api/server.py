"""What the handlers share: the models, the scheduler, the limits and the fetcher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
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

EDITING = ("image", "mask", "strength", "paste_original", "image_guidance_scale")


@dataclass
class Server:
    """One server.

    Attributes:
        models: by the names that clients use; the first is the default.
        scheduler: owns them.
        limits: of a request.
        fetcher: of pictures with an address.
        created: when the server started, in seconds since 1970.
    """

    models: Mapping[str, Pipeline]
    scheduler: Scheduler
    limits: Limits
    fetcher: Fetcher
    created: int = 0

    def model(self, name: str | None) -> tuple[str, Pipeline]:
        """A model by name, with that name.

        Raises:
            ApiError: if there is none of that name.
        """
        chosen = next(iter(self.models)) if name is None else name
        self.check_model(chosen)
        return chosen, self.models[chosen]

    def check_model(self, name: str) -> None:
        """Refuses a name that no model has, without reading adapters.

        Raises:
            ApiError: naming the models that there are.
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404,
                f"model {shortened(repr(name))} is not served here; there are {known}",
                param="model",
                code="model_not_found",
            )

    def timeout(self, body: Job) -> float:
        """Seconds until a request fails."""
        return self.limits.timeout if body.timeout is None else min(body.timeout, self.limits.timeout)

    def check_most(self, name: str, value: int, most: int) -> None:
        """Refuses what is above a limit of this server.

        Raises:
            ApiError: naming both.
        """
        if value > most:
            raise invalid(f"{name} is {value}; this server allows at most {most}", name)


def settings_of(model: Pipeline) -> dict[str, Any]:
    """What requests for pictures may set, arguments of `generate`, with defaults; None where these depend on others."""
    known = signature(model.generate).parameters
    names = [name for name in (*model.sampling, "height", "width", *EDITING) if name in known]
    return {**dict.fromkeys(names), **model.complete({})}


def seed_of(http: Request, seed: int | None) -> int:
    """A request's seed; without one a number that follows from the request's id, so that a second attempt has the same.

    Args:
        http: the request.
        seed: that it names.
    """
    if seed is not None:
        return seed
    return int.from_bytes(hashlib.sha256(http.state.request_id.encode()).digest()[:4])


def server_of(http: Request) -> Server:
    """The server that a request came to."""
    found: Server = http.app.state.server
    return found
