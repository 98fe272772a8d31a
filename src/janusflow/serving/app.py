"""The application: routes, error handlers, and the gate that every request passes through."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.resources import files

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from janusflow import __version__
from janusflow.pipelines.base import Pipeline
from janusflow.serving.api import chat, images, status
from janusflow.serving.api.server import Server
from janusflow.serving.errors import ApiError, on_api_error, on_http_error, on_invalid_body
from janusflow.serving.fetch import Fetcher
from janusflow.serving.gate import Gate
from janusflow.serving.keys import ApiKeys
from janusflow.serving.scheduler import Scheduler
from janusflow.serving.settings import Limits


def create_app(
    models: Mapping[str, Pipeline],
    scheduler: Scheduler,
    *,
    limits: Limits | None = None,
    keys: ApiKeys | None = None,
    fetcher: Fetcher | None = None,
    page: bool = False,
) -> FastAPI:
    """Build the ASGI application; the caller starts and closes the scheduler.

    Args:
        models: pipelines by the names that clients use; the first is the default.
        scheduler: scheduler that owns the models.
        limits: limits of a request.
        keys: accepted API keys; None accepts everybody.
        fetcher: fetches pictures that are given by address.
        page: whether `/` shows the page.

    Example:
        ```python
        scheduler = Scheduler(PipelineRunner())
        scheduler.start()
        app = create_app({"tiny": JanusFlow.from_pretrained("tiny")}, scheduler)
        ```
    """
    limits = limits or Limits()
    app = FastAPI(
        title="janusflow",
        version=__version__,
        summary="Texts and pictures from one model, with OpenAI's requests.",
        redirect_slashes=False,
    )
    app.state.server = Server(models, scheduler, limits, fetcher or Fetcher(limits), int(time.time()))
    for router in (chat.router, images.router, status.router):
        app.include_router(router)
    if page:
        app.mount("/page", StaticFiles(directory=str(files("janusflow.serving") / "page"), html=True))
        app.add_api_route("/", lambda: RedirectResponse("/page/"), include_in_schema=False)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_middleware(Gate, limits=limits, keys=keys, metrics=scheduler.metrics)
    return app
