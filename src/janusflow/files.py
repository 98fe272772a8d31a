"""Small files: JSON that is checked before anything uses it, and texts that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

LARGEST = 256 * 2**20  # bytes of a JSON file; the largest tokenizers have a tenth of it


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: if it is too large, is not UTF-8 or not JSON, is nested too deeply, or holds NaN or infinite
            numbers. The message names the file.
        OSError: if it cannot be read.
    """
    size = file.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{file} has {size} bytes; a JSON file of at most {LARGEST} is read")
    try:
        return loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def loads(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: as `read_json`, without the name of a file.
    """
    try:
        return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def checked(kind: type[T], value: Any, source: str | Path) -> T:
    """Convert what JSON or YAML holds to a typed value, such as a dataclass, without guessing: "3" is not 3.

    Args:
        kind: any type that pydantic knows; constraints are `Annotated[int, Field(ge=1)]`.
        value: dictionaries, lists, strings, numbers, booleans and None.
        source: where it comes from, which the error names.

    Raises:
        ValueError: for the first field that is missing, unknown or of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r:.80})"
        raise ValueError(f"{source} is damaged: {place + ': ' if place else ''}{first['msg']}{given}") from error
    except (TypeError, ValueError, RecursionError) as error:  # not a value of JSON
        raise ValueError(f"{source} is damaged: {error or 'it is nested too deeply'}") from error


def write_text(file: Path, text: str) -> None:
    """Write a text next to its place under a name of this process, and move it there."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _not_finite(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text:.20}, which is too large")
    return number
