"""Base classes of all request bodies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


def without_nulls(value: Any) -> Any:
    """Return a mapping without its null entries, which clients send for "not given"."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class Body(BaseModel):
    """Body that refuses unknown parameters and values of another type; null is the default."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return without_nulls(value)


class Job(Body):
    """Scheduler settings, for every request that the model works on."""

    priority: Annotated[int, Field(ge=0, le=9, description="0 is served first; more lets other requests go first.")] = 0
    timeout: Annotated[
        float | None,
        Field(gt=0, description="Seconds until an unfinished request fails; the server has a limit."),
    ] = None
