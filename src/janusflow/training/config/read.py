"""Turn recipes into settings; a mistake in a recipe raises an error of one sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from janusflow.arguments import quoted
from janusflow.data.sources.registry import find_kind
from janusflow.recipes import overridden, read_recipe
from janusflow.training.config.check import check_config
from janusflow.training.config.run import TrainConfig
from janusflow.training.config.spelling import meant

Config = TypeVar("Config")
SHORT = {"model": "model.checkpoint", "data": "data.own", "crop": "samples.crop"}  # short names in overrides


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe with overrides, and check it.

    Args:
        recipe: a YAML file.
        overrides: `key=value` with dotted keys (`optimizer.learning_rate=1e-4`, `data.generation.0.path=FOLDER`) and
            YAML values. `model=X` is short for `model.checkpoint=X`, `data=X` (or `data=[X,Y]`) for `data.own=X`,
            and `crop=X` for `samples.crop=X`.

    Raises:
        ValueError: for an unreadable file, an unknown key, a wrong type or an impossible combination, in one sentence.

    Example:
        >>> load_config("recipes/paper/stage1.yaml", ["steps=100"]).steps
        100
    """
    return read_config(recipe_values(recipe, overrides))


def recipe_values(recipe: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Return the plain values of a recipe with overrides (see `load_config`).

    Raises:
        ValueError: for an unreadable file or an override that does not fit.
    """
    return overridden(read_recipe(Path(recipe)), overrides, short=SHORT)


def read_config(values: Any, *, check: bool = True) -> TrainConfig:
    """Build a configuration from plain values, and check it.

    Args:
        check: also run the checks that need the whole configuration, such as for missing data.

    Raises:
        ValueError: as for `load_config`.
    """
    config: TrainConfig = typed_config(TrainConfig, values)
    if check:
        check_config(config)
    return config


def typed_config(kind: type[Config], values: Any) -> Config:
    """Convert plain values (nested dictionaries) to a dataclass.

    Raises:
        ValueError: for an unknown key in any block, or a wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    _forbid_unknown(kind)
    try:
        # As JSON: there, "strict" means that neither true nor "5" is a number, but a list can be a tuple.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the recipe"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise ValueError(
                f"{place} is not a setting of a recipe{_meant(kind, values, first['loc'])}{more}"
            ) from error
        if first["type"] in ("missing", "missing_argument"):
            raise ValueError(f"{place} is missing{more}") from error
        if first["type"] == "value_error":
            raise ValueError(f"{place}: {first['ctx']['error']}{more}") from error
        raise ValueError(f"{place} is {quoted(first['input'])}: {first['msg'].lower()}{more}") from error


def _forbid_unknown(kind: Any) -> None:
    """Make pydantic refuse unknown keys of a dataclass and of the dataclasses in its fields."""
    setattr(kind, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010 (no field of theirs)
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if is_dataclass(part):
                _forbid_unknown(part)


def _meant(config: type, values: Any, place: Sequence[int | str]) -> str:
    """Return the end of a sentence about an unknown setting, which may belong to a kind of source."""
    block = values
    for part in place[:-1]:
        block = block[part]
    kind = block.get("kind")
    kinds = {".".join(map(str, place[:-1])): find_kind(kind)} if isinstance(kind, str) else {}
    return meant(config, ".".join(map(str, place)), kinds)
