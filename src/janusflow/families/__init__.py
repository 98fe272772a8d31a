"""The families of models: those of the package, those that other packages register, and those of the user's own.

A family is one file with a `Family`, next to its network, layouts and pipeline. Nothing else asks which family a model
is of: it asks the model's `Family`. Another package registers one in its `pyproject.toml`:

    [project.entry-points."janusflow.families"]
    Toy = "my_package.toy:FAMILY"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from janusflow.families.family import Family, Licence
from janusflow.families.layout import Layout

GROUP = "janusflow.families"  # entry points of other packages
BUILT_IN = ("janusflow.families.janusflow:FAMILY", "janusflow.families.janus:FAMILY")
_found: dict[str, Family] = {}
_own: dict[str, Family] = {}

__all__ = ["Family", "Licence", "families", "family_of", "find_layout", "register"]


def register(family: Family) -> Family:
    """Make a family known to this process, and return it.

    Raises:
        ValueError: if another family has its name.
    """
    if families().get(family.name, family) is not family:
        raise ValueError(f"there is a family {family.name} already; give the new one another name")
    _own[family.name] = family
    return family


def families() -> Mapping[str, Family]:
    """All families by name; their files are imported at the first call.

    Example:
        >>> list(families())
        ['JanusFlow', 'Janus']
    """
    if not _found:
        places = [*BUILT_IN, *(found.value for found in entry_points(group=GROUP))]
        _found.update({family.name: family for family in map(resolve_name, places)})
    return {**_own, **_found}


def family_of(config: Any) -> Family:
    """The family of a network's configuration.

    Raises:
        ValueError: if it is of none.

    Example:
        >>> from janusflow.config import tiny
        >>> family_of(tiny()).name
        'JanusFlow'
    """
    for family in families().values():
        if isinstance(config, family.config):
            return family
    raise ValueError(f"a {type(config).__name__} is of no family; known are {', '.join(families())}")


def find_layout(raw: Mapping[str, Any], files: Sequence[Path] = ()) -> tuple[Family, Layout] | None:
    """The family and layout of a folder; None if it is of none.

    Args:
        raw: its `config.json`.
        files: its weight files, if they are known.
    """
    for family in families().values():
        for layout in family.layouts:
            if layout.detect(raw, files):
                return family, layout
    return None
