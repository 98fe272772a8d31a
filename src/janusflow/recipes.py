"""Recipes: YAML files with `key=value` overrides, read by OmegaConf for training and evaluation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.extras import require
from janusflow.files import check_yaml, read_yaml

MOST_REFERENCES = 20  # in a recipe: references to references multiply with every level


def read_recipe(file: Path, *, feature: str = "training", extra: str | None = None) -> Any:
    """Return the plain values of a recipe, with references `${a.b}` left unresolved.

    Args:
        file: YAML file, or JSON, which is a subset of YAML.
        feature, extra: what needs OmegaConf, and the extra that contains it, for the error if it is missing.

    Raises:
        ValueError: if the file is missing, unreadable or not YAML.
    """
    require(feature, "omegaconf", extra=extra)
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    named = f"recipe {quoted(str(file))}"
    try:
        text = read_yaml(file)
        recipe = OmegaConf.create(text) if text.strip() else OmegaConf.create()
    except FileNotFoundError as error:
        raise ValueError(f"{named} does not exist") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        said = " ".join(str(error).split()) if isinstance(error, YAMLError) else str(error).splitlines()[0]
        raise ValueError(f"{named} cannot be read: {said}") from error
    except AssertionError as error:  # raised by OmegaConf for a single number
        raise ValueError(f"{named} contains a single value; expected settings, one `key: value` a line") from error
    values = OmegaConf.to_container(recipe, resolve=False)
    if _has_boolean_key(values):
        raise ValueError(f"{named} has a key that YAML reads as true or false; put quotes around it, as in 'no': ...")
    return values


def _has_boolean_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any(isinstance(key, bool) or _has_boolean_key(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_has_boolean_key(inner) for inner in value)


def overridden(
    values: Any, overrides: Sequence[str], *, short: Mapping[str, str] | None = None, resolve: bool = True
) -> Any:
    """Return plain values with overrides applied, and references replaced by what they refer to.

    Args:
        overrides: `key=value` with dotted keys (`data.0.path=FOLDER`) and values in YAML.
        short: short names of keys.

    Raises:
        ValueError: for an override that is not `key=value` or does not fit, or for a reference to nothing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    raw = OmegaConf.create(values)
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not all(key.split(".")):
            raise ValueError(f"override {quoted(override)} is not of the form key=value")
        try:
            OmegaConf.update(raw, (short or {}).get(key, key), yaml_value(value), merge=False, force_add=True)
        except (OmegaConfBaseException, YAMLError, ValueError, TypeError, IndexError, RecursionError) as error:
            said = "it has no such item" if isinstance(error, IndexError) else str(error).splitlines()[0]
            raise ValueError(f"override {quoted(override)} does not fit the recipe: {said}") from error
    if not resolve:
        return OmegaConf.to_container(raw, resolve=False)
    references = str(OmegaConf.to_container(raw, resolve=False)).count("${")
    if references > MOST_REFERENCES:
        raise ValueError(
            f"the recipe has {references} references such as ${{name}}; at most {MOST_REFERENCES} are read"
        )
    try:
        return OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"the recipe has a reference that cannot be read: {str(error).splitlines()[0]}") from error


def yaml_value(text: str) -> Any:
    """Return a value in YAML, as in an override.

    Raises:
        ValueError: if it is not YAML.
    """
    require("a setting", "omegaconf")
    from omegaconf import OmegaConf
    from yaml import YAMLError

    check_yaml(text)
    try:
        return OmegaConf.to_container(OmegaConf.create(f"x: {text}"), resolve=False)["x"]  # type: ignore[call-overload, index]
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def with_environment(value: Any) -> Any:
    """Return plain values with each `${VAR}` in strings replaced by that environment variable, if it is set."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: with_environment(inner) for key, inner in value.items()}
    return [with_environment(inner) for inner in value] if isinstance(value, list) else value
