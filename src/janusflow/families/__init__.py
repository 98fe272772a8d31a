"""Find families of models: those of the package, those that other packages register, and your own.

A family is one file with a `Family` (`family.py`), next to its network, layouts and pipeline. All other code uses the
`Family` of a model, and does not ask which family it is. Another package registers one in its `pyproject.toml`:

    [project.entry-points."janusflow.families"]
    Toy = "my_package.toy:FAMILY"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from janusflow.families.family import Family, Licence
from janusflow.families.layout import Layout
from janusflow.functions import load_plugin, plugins

GROUP = "janusflow.families"  # entry points of other packages
BUILT_IN = ("janusflow.families.janusflow:FAMILY", "janusflow.families.janus:FAMILY")
_found: dict[str, Family] = {}
_own: dict[str, Family] = {}

__all__ = ["Family", "Licence", "families", "family_of", "find_layout", "register"]


def register(family: Family) -> Family:
    """Register a family in this process, and return it.

    Raises:
        ValueError: if another family has its name.
    """
    if families().get(family.name, family) is not family:
        raise ValueError(f"a family {family.name} already exists; give the new one another name")
    _own[family.name] = family
    return family


def families() -> Mapping[str, Family]:
    """Return all families by name; their files are imported at the first call. Built-in ones are not replaced.

    Raises:
        ValueError: if a package registers a family that does not load.

    Example:
        >>> list(families())
        ['JanusFlow', 'Janus']
    """
    if not _found:
        others = (load_plugin(plugin, "family") for plugin in plugins(GROUP).values())
        for family in (*map(resolve_name, BUILT_IN), *others):
            _found.setdefault(family.name, family)
    return {**_own, **_found}


def family_of(config: Any) -> Family:
    """Return the family of a network's configuration.

    Raises:
        ValueError: if it belongs to no family.

    Example:
        >>> from janusflow.config import tiny
        >>> family_of(tiny()).name
        'JanusFlow'
    """
    for family in families().values():
        if isinstance(config, family.config):
            return family
    raise ValueError(f"a {type(config).__name__} belongs to no family; choose from {', '.join(families())}")


def find_layout(raw: Mapping[str, Any], files: Sequence[Path] = ()) -> tuple[Family, Layout] | None:
    """Return the family and layout of a folder; None if no layout matches.

    Args:
        files: weight files of the folder, if known.
    """
    for family in families().values():
        for layout in family.layouts:
            if layout.detect(raw, files):
                return family, layout
    return None
