"""A recipe's file as a tree of keys and values, and a block of it whose keys are taken one by one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.files import check_yaml, loads, read_yaml


def read_tree(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, with `${VAR}` expanded and then the overrides "a.b=v" set.

    Raises:
        ValueError: in one sentence, if the file is missing, damaged or no mapping, or an override has no such form.
    """
    import yaml

    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{file} is not a .yaml, .yml or .json file")
    try:
        text = read_yaml(file)  # which JSON is too
        told = loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{file} does not contain a mapping of keys and values")
    tree: dict[str, Any] = _expanded(told)
    for override in overrides:
        key, mark, value = override.partition("=")
        parts = key.strip().split(".")
        if not mark or not all(parts):
            raise ValueError(f"{quoted(override)} is not a setting; expected key=value or block.key=value")
        place = tree
        for part in parts[:-1]:
            below = place.setdefault(part, {})
            if below is None:
                below = place[part] = {}
            if not isinstance(below, dict):
                raise ValueError(f"{quoted(override)} cannot be set in {file}: {part} is not a block there")
            place = below
        try:
            place[parts[-1]] = yaml_value(value)
        except ValueError as error:
            raise ValueError(f"{quoted(override)} has a value that is not valid YAML") from error
    return tree


def yaml_value(text: str) -> Any:
    """A value in YAML that stands in a command line.

    Raises:
        ValueError: if it is none.
    """
    import yaml

    check_yaml(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _expanded(value: Any) -> Any:
    """A tree with each ${VAR} that is set replaced in its strings."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: _expanded(inner) for key, inner in value.items()}
    return [_expanded(inner) for inner in value] if isinstance(value, list) else value


@dataclass
class Keys:
    """A block's values by dotted key, taken one by one; `left` are those that nobody took."""

    name: str
    left: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, block: Any, name: str) -> Keys:
        """Of a block as it was read; None is an empty one.

        Raises:
            ValueError: if it is something else.
        """
        if not isinstance(block, (dict, type(None))):
            raise ValueError(f"{name} is {quoted(block)}; expected a block of keys and values")
        return cls(name, dict(_leaves(block or {})))

    def take(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of these keys that has one; all of them are done with.

        Raises:
            ValueError: if a block that one of them would be in is something else, or one of them is a block.
        """
        for above in {key.rpartition(".")[0] for key in keys} - {""}:
            if self.left.get(above) not in (None, {}):
                raise ValueError(
                    f"{self.name}.{above} is {quoted(self.left[above])}; expected a block of keys and values"
                )
        for key in keys:
            if self.left.get(key) == {} or any(name.startswith(f"{key}.") for name in self.left):
                raise ValueError(f"{self.name}.{key} is a block of keys and values; expected one value")
        found = [self.left.pop(key, None) for key in keys]
        return next((value for value in found if value is not None), default)

    def take_from(self, part: str, key: str) -> Any:
        """A model's argument: of the request, else of its own block."""
        return self.take(f"request.params.{key}", f"backbone_cfg.{part}.{key}")

    def unused(self) -> dict[str, Any]:
        """What is left, by full name."""
        return {f"{self.name}.{key}": value for key, value in self.left.items() if value not in (None, {})}


def _leaves(block: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in block.items():
        inside = isinstance(value, dict) and value  # an empty block is a value: it stands where one may be expected
        found += _leaves(value, f"{before}{key}.") if inside else [(f"{before}{key}", value)]
    return found
