"""The sources that a recipe's `data` stands for, including a user's own data."""

from __future__ import annotations

import warnings

from janusflow.data.mixture import TASKS
from janusflow.data.sources import SourceConfig, file_config, kind_of, size_of, tasks_of
from janusflow.training.config.data import DataConfig


def sources_of(data: DataConfig) -> dict[str, list[SourceConfig]]:
    """Return the sources by task, including those of a user's own data.

    Raises:
        ValueError: if a user's own data has an unknown form, or nothing to learn from.
    """
    given: dict[str, list[SourceConfig]] = {task: list(getattr(data, task)) for task in TASKS}
    for task, own in own_tasks(data).items():
        others = sum(source.weight for source in given[task])
        if data.own_share >= 1 or not others:
            given[task], whole = [], 1.0
        else:
            whole = others * data.own_share / (1 - data.own_share)
        sizes = [size_of(kind, path, task) if len(own) > 1 else 1 for kind, path in own]
        for (kind, path), size in zip(own, sizes, strict=True):
            given[task].append(file_config(kind, path, weight=whole * size / sum(sizes), fitting=True))
    return given


def own_tasks(data: DataConfig) -> dict[str, list[tuple[str, str]]]:
    """Return kind and path of a user's own data by the task that it serves.

    Raises:
        ValueError: if any of the data has an unknown form, or none of it has anything to learn from.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    nothing: list[str] = []
    for path in [data.own] if isinstance(data.own, str) else data.own or []:
        kind = kind_of(path)
        tasks = tasks_of(kind, path)
        if not tasks:
            nothing.append(f"{path} contains no readable picture with a text or a conversation")
        for task in tasks:
            found.setdefault(task, []).append((kind, path))
    if nothing and not found:
        raise ValueError("; ".join(nothing))
    for fault in nothing:
        warnings.warn(f"{fault}; training continues without it", stacklevel=2)
    return found


def weights_of(data: DataConfig) -> dict[str, list[float]]:
    """Return the weights of the sources by task."""
    return {task: [source.weight for source in sources] for task, sources in sources_of(data).items()}


def learned(data: DataConfig) -> list[tuple[str, int, SourceConfig]]:
    """Return task, number and settings of each source whose task ever has a share."""
    used = {task: given for task, given in sources_of(data).items() if any(getattr(r, task) for r in data.ratios)}
    return [(task, number, source) for task, given in used.items() for number, source in enumerate(given)]


def anchored(data: DataConfig) -> bool:
    """Return whether any source trains on the model's outputs from before the run."""
    return any(source.anchor for *_, source in learned(data))
