"""Errors in the OpenAPI documentation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """Why a request was refused, in OpenAI's format."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error; the header x-request-id has the id from the server's log."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "A parameter is unknown, or its value is not allowed."},
    401: {"model": ErrorBody, "description": "The API key is missing or wrong."},
    404: {"model": ErrorBody, "description": "The model is not served here."},
    408: {"model": ErrorBody, "description": "The request was not finished within its timeout."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    422: {"model": ErrorBody, "description": "Not used: wrong values are answered with 400."},
    429: {"model": ErrorBody, "description": "The queue is full or the key's rate is used up; see Retry-After."},
    503: {"model": ErrorBody, "description": "The server is shutting down; see Retry-After."},
}
