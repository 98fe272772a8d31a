"""The settings stored in a run's folder, `settings.json`: write, compare, and read them to resume or export."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from janusflow.data.mixture import TASKS
from janusflow.data.sources.registry import without_foreign
from janusflow.files import checked, read_json, write_text
from janusflow.recipes import overridden
from janusflow.training.config import TrainConfig, read_config
from janusflow.training.config.read import SHORT

SETTINGS = "settings.json"
FREE = (  # settings that may change without changing what a run computes
    "out", "save", "watch", "data.workers", "data.max_broken", "data.cache", "data.allow_changes", "spike"
)  # fmt: skip


def without_free(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, as nested plain values, without those of `FREE`."""

    def kept(values: dict[str, Any], above: str = "") -> dict[str, Any]:
        return {
            name: kept(value, f"{above}{name}.") if isinstance(value, dict) else value
            for name, value in values.items()
            if f"{above}{name}" not in FREE
        }

    return kept(settings)


def write_settings(out: Path, config: TrainConfig) -> None:
    """Write a run's settings to `settings.json` in its folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS, json.dumps(asdict(config), indent=1, default=str) + "\n")


def stored_config(out: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the settings of the run in a folder, even if the folder has moved, without looking at its data.

    Raises:
        ValueError: if the folder contains no run.
    """
    try:
        stored = read_settings(out / SETTINGS)
    except OSError as error:
        raise ValueError(f"{out} contains no run of `janusflow train`: its {SETTINGS} cannot be read") from error
    try:
        return replace(read_config(overridden(stored, overrides, short=SHORT), check=False), out=str(out))
    except ValueError as error:
        raise ValueError(f"{out / SETTINGS}: {error}") from error


def read_settings(file: Path) -> dict[str, Any]:
    """Read the settings that `write_settings` wrote, as plain values.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read.
    """
    stored = checked(dict[str, Any], read_json(file, finite=False), file)  # a clip of .inf is allowed
    if isinstance(data := stored.get("data"), dict):
        data |= {task: [*map(without_foreign, data[task])] for task in TASKS if isinstance(data.get(task), list)}
    return stored


def changed_settings(out: Path, config: TrainConfig) -> list[str]:
    """List the differences from the stored settings of a run that change what it computes, as "seed 0 -> 1"."""
    file = out / SETTINGS
    if not file.is_file():
        return []
    before, now = read_settings(file), json.loads(json.dumps(asdict(config), default=str))
    return differences(before, now, free=FREE)


def differences(before: Any, now: Any, *, free: Collection[str] = ()) -> list[str]:
    """List the differences between nested settings, as "tower.words 1.0 -> 5.0".

    Args:
        free: names that may differ, of blocks or of single settings.
    """
    was, new = _flat(before), _flat(now)
    names = [name for name in {**was, **new} if name.split(".")[0] not in free and name not in free]
    return [f"{name} {was.get(name)!r} -> {new.get(name)!r}" for name in names if was.get(name) != new.get(name)]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings by their dotted names; empty lists and mappings have none."""
    if not isinstance(value, dict | list):
        return {name: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    flat: dict[str, Any] = {}
    for key, one in pairs:
        flat |= _flat(one, f"{name}.{key}" if name else str(key))
    return flat
