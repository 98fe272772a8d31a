"""The kinds of sources by name: those of the package, and those that other packages register."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.metadata import EntryPoint
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter

from janusflow.arguments import quoted, suggestion
from janusflow.data.sources.config import SourceConfig
from janusflow.functions import load_plugin, plugins

GROUP = "janusflow.sources"  # entry points of other packages
ONCE = {  # settings that sources of every kind had in version 0.1
    *("split", "streaming", "shares", "questions", "described", "bold", "ordered", "unnamed", "composed", "spoiled"),
    *("fitting", "images", "guidance", "teacher", "judge", "min_score"),
}
BUILT_IN = {
    name: EntryPoint(name, f"janusflow.data.sources.{place}", GROUP)
    for name, place in {
        "folder": "folder:FolderConfig",
        "jsonl": "jsonl:JsonlConfig",
        "parquet": "parquet:ParquetConfig",
        "webdataset": "webdataset:WebdatasetConfig",
        "hub": "hub:HubConfig",
        "replay": "replay:ReplayConfig",
    }.items()
}


def kinds() -> dict[str, EntryPoint]:
    """Return all kinds by name; those of the package are not replaced."""
    return BUILT_IN | plugins(GROUP, BUILT_IN)


def find_kind(kind: str) -> type[SourceConfig]:
    """Return the settings class of a kind of source.

    Raises:
        ValueError: for an unknown kind, or one whose class cannot be loaded or is not that of a source.

    Example:
        >>> find_kind("jsonl").__name__
        'JsonlConfig'
    """
    plugin = BUILT_IN.get(kind) or kinds().get(kind)
    if plugin is None:
        known = ", ".join(kinds())
        raise ValueError(f"kind of source is {quoted(kind)}; choose from {known}{suggestion(kind, kinds())}")
    found = load_plugin(plugin, "source")
    if not isinstance(found, type) or not issubclass(found, SourceConfig):
        raise ValueError(f"source {kind!r} is {plugin.value}, which is not a subclass of {SourceConfig.__name__}")
    return found


def read_source(values: Any) -> SourceConfig:
    """Build the settings of a source from plain values, validated by its kind's class.

    Raises:
        ValueError: for an unknown kind; as pydantic's ValidationError for settings that the kind does not have.
    """
    kind = values.get("kind") if isinstance(values, dict) else None
    found = find_kind(kind) if isinstance(kind, str) else SourceConfig
    return TypeAdapter(found).validate_json(json.dumps(values), strict=True)


AnySource = Annotated[SourceConfig, PlainValidator(read_source)]
"""A source in a recipe; `kind` selects the class that reads it."""


def without_foreign(values: Any) -> Any:
    """Remove settings of other kinds, which older versions wrote for every source, from a source's plain values.

    Settings that no source has stay, for `read_source` to reject.
    """
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in kinds():
        return values
    own = {each.name for each in fields(find_kind(kind))}
    return {name: value for name, value in values.items() if name in own or name not in ONCE}
