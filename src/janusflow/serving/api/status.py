"""`/v1/models`, `/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from janusflow.serving.api.documented import ERRORS
from janusflow.serving.api.server import Server, server_of, settings_of

router = APIRouter(tags=["status"])


@router.get("/v1/models", summary="List the models")
async def models(http: Request) -> dict[str, Any]:
    """List the model, and one entry `MODEL:ADAPTER` for each of its adapters."""
    server = server_of(http)
    return {"object": "list", "data": [described(server, name) for name in server.models]}


@router.get("/v1/models/{name:path}", summary="Describe a model", responses=ERRORS)
async def model(name: str, http: Request) -> dict[str, Any]:
    """Describe one model."""
    server = server_of(http)
    server.check_model(name)
    return described(server, name)


def described(server: Server, name: str) -> dict[str, Any]:
    """Return a model in OpenAI's format, with the settings of picture requests."""
    settings = settings_of(server.model(None)[1])  # adapters change none of them, and are not read for this
    return {"id": name, "object": "model", "created": server.created, "owned_by": "janusflow", "settings": settings}


@router.get("/health/live", summary="Whether the process answers")
async def live() -> dict[str, str]:
    """Always succeeds while the process answers."""
    return {"status": "live"}


@router.get("/health/ready", summary="Whether requests are accepted", responses={503: {"description": "They are not."}})
async def ready(http: Request) -> JSONResponse:
    """Return 503 while the server shuts down, or if the model's thread has ended."""
    scheduler = server_of(http).scheduler
    if scheduler.alive and not scheduler.draining:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "draining" if scheduler.alive else "failed"}, 503)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(http: Request) -> Response:
    """Return metrics of queue, times, tokens, pictures, batches, refusals and memory."""
    return Response(server_of(http).scheduler.metrics.text(), media_type=CONTENT_TYPE_LATEST)
