"""Errors in OpenAI's format: {"error": {"message", "type", "param", "code"}}, each with its HTTP status."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from janusflow.arguments import shortened
from janusflow.serving.jobs import CancelledError, DeadlineError, StoppedError
from janusflow.serving.scheduler import DrainingError, QueueFullError

RETRY_WHILE_DRAINING = 5  # seconds
NAMED = re.compile(r"(?:the )?(\w+) (?:is|has|have|holds|hold) ")  # how our errors begin


class ApiError(Exception):
    """Error that is sent to the client.

    Args:
        status: HTTP status.
        message: one sentence.
        param: parameter that is wrong.
        code: error code for programs.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        kinds = {401: "authentication_error", 429: "rate_limit_error", 404: "not_found_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        param = None if self.param is None else _whole(self.param)
        return {"error": {"message": _whole(self.message), "type": kind, "param": param, "code": self.code}}


def _whole(text: str) -> str:
    """Replace halves of characters, which JSON can contain and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """Return the error for a request that is not allowed."""
    return ApiError(400, message, param=param, code=code)


def as_api_error(error: BaseException) -> ApiError:
    """Convert an error of this package into the one that the client gets."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return ApiError(429, str(error), code="queue_full", headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, (DrainingError, StoppedError)):
        return ApiError(503, str(error), code="draining", headers={"Retry-After": str(RETRY_WHILE_DRAINING)})
    if isinstance(error, DeadlineError):
        return ApiError(408, str(error), code="timeout")
    if isinstance(error, CancelledError):
        return ApiError(499, str(error), code="cancelled")
    if isinstance(error, ValueError):
        found = NAMED.match(str(error))
        return invalid(str(error), found[1] if found else None)
    return ApiError(500, "the server failed; the log has more under this request's id", code="internal_error")


def respond(error: ApiError) -> JSONResponse:
    """Return the HTTP response for an error."""
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI handler for `ApiError`."""
    return respond(as_api_error(error))


async def on_invalid_body(request: Request, error: Exception) -> JSONResponse:
    """FastAPI handler for an invalid body; reports the first error in one sentence."""
    assert isinstance(error, RequestValidationError)
    return respond(from_validation(error.errors()))


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI handler for its own errors, such as unknown paths."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path}: {error.detail}"
    return respond(ApiError(error.status_code, said, headers=error.headers))


def _names(place: Sequence[str | int]) -> list[str]:
    """Return the names and indices that lead to a value, without pydantic's names for the types that it tried."""
    found, tagged = list[str](), False
    for part in place:
        if part in ("body", "str", "constrained-str") or "[" in str(part):  # such as list[TextPart]
            tagged = "tagged-union" in str(part)
        elif tagged and isinstance(part, str):  # which of the types it was
            tagged = False
        else:
            found.append(str(part))
    return found


def _fits(error: Any) -> bool:
    """Return whether the value has the type that was tried: a string where a string was expected, or a list."""
    return bool(error["type"] not in ("string_type", "list_type"))


def from_validation(errors: Sequence[Any]) -> ApiError:
    """Return the first of pydantic's errors. Unknown parameters precede wrong values, which may follow from them."""
    same = [one for one in errors if _names(one["loc"])[:1] == _names(errors[0]["loc"])[:1]]
    nearest = max(same, key=lambda one: (len(one["loc"]), _fits(one)))  # if several types of a value were tried
    chosen = next((one for one in errors if one["type"] == "extra_forbidden"), nearest)
    param = ".".join(_names(chosen["loc"])) or None
    if chosen["type"] == "extra_forbidden":
        message = f"{shortened(param or '')} is not a parameter that this server supports; leave it out"
        return invalid(message, shortened(param or ""), "unknown_parameter")
    if chosen["type"] == "too_long" and "actual_length" in chosen.get("ctx", {}):
        count, most = chosen["ctx"]["actual_length"], chosen["ctx"]["max_length"]
        return invalid(f"{param} has {count} entries; at most {most} are allowed", param)
    if chosen["type"] == "missing":
        return invalid(f"{param or 'the body'} is missing", param, "missing_required_parameter")
    if chosen["type"] == "json_invalid":
        return invalid("the body is not valid JSON", None, "invalid_json")
    given = chosen.get("input")
    shown = f" is {shortened(repr(given))}" if isinstance(given, (str, int, float)) else ""
    return invalid(f"{param or 'the body'}{shown}: {shortened(chosen['msg'].removeprefix('Value error, '))}", param)
