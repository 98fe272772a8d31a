"""TorchUMM's files as trees of keys and values, and blocks whose keys are taken one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.recipes import overridden, read_recipe, with_environment


def read_tree(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file, with `${VAR}` expanded and then the overrides "a.b=v" set.

    An unset variable stays as it is: TorchUMM's files name some that a run may not need.

    Raises:
        ValueError: in one sentence, if the file is missing, damaged or not a mapping, or an override is malformed.
    """
    found = read_recipe(file, feature="evaluation", extra="eval")
    if not isinstance(found, dict):
        raise ValueError(f"{file} does not contain a mapping of keys and values")
    tree: dict[str, Any] = overridden(with_environment(found), overrides, resolve=False)
    return tree


@dataclass
class Keys:
    """A block's values by dotted key, taken one by one; `left` contains those that are not taken yet."""

    name: str
    left: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, block: Any, name: str) -> Keys:
        """Create from a block as it was read; None is an empty block.

        Raises:
            ValueError: if it is something else.
        """
        if not isinstance(block, (dict, type(None))):
            raise ValueError(f"{name} is {quoted(block)}; expected a block of keys and values")
        return cls(name, dict(_leaves(block or {})))

    def take(self, *keys: str, default: Any = None) -> Any:
        """Return the value of the first of these keys that has one; all of them are taken.

        Raises:
            ValueError: if the parent of a key is not a block, or a key is itself a block.
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
        """Take a model's argument from the request, or else from its own block."""
        return self.take(f"request.params.{key}", f"backbone_cfg.{part}.{key}")

    def unused(self) -> dict[str, Any]:
        """Return what is left, by full name."""
        return {f"{self.name}.{key}": value for key, value in self.left.items() if value not in (None, {})}


def _leaves(block: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in block.items():
        inside = isinstance(value, dict) and value  # an empty block is a value: it stands where one may be expected
        found += _leaves(value, f"{before}{key}.") if inside else [(f"{before}{key}", value)]
    return found
