"""Describe a layout: how a folder stores a configuration and weights. Each one is a file in `checkpoint/layouts`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.processing.processor import JanusFlowProcessor


@dataclass(frozen=True)
class Source:
    """Where a layout stores a parameter of a network.

    Attributes:
        names: stored tensors, concatenated along their first axis.
        third: which third of the rows the parameter is (0, 1, 2: query, key, value), or None for all of them.
    """

    names: tuple[str, ...]
    third: int | None = None


def same_name(name: str) -> Source:
    """Return the stored tensor that has the parameter's own name."""
    return Source((name,))


def any_network(config: Any) -> None:
    """Accept every network."""


@dataclass(frozen=True)
class Layout:
    """One way to store networks of a family.

    Attributes:
        name: name in `convert` and `info`.
        detect: `(config.json, weight files) -> bool`; the files are empty if none were downloaded.
        read_config: `(config.json, ids of special tokens, names of tensors) -> configuration`. The ids are read from
            `tokenizer.json` only for released layouts; the names are None if no weights were downloaded.
        source: `parameter -> Source`.
        write: `(configuration, processor, folder, dtype)` writes everything but the weights; None if nothing is written
            in this layout.
        check: `configuration -> None`, raises a ValueError for a network that cannot be written in this layout.
        released: whether released weights use it: without ids of special tokens and without a VAE.
        unused: prefixes of stored tensors that the network does not use.
    """

    name: str
    detect: Callable[[Mapping[str, Any], Sequence[Path]], bool]
    read_config: Callable[[dict[str, Any], dict[str, int], Collection[str] | None], Any]
    source: Callable[[str], Source] = same_name
    write: Callable[[Any, JanusFlowProcessor, Path, str], None] | None = None
    check: Callable[[Any], None] = any_network
    released: bool = False
    unused: tuple[str, ...] = ()


def own_layout(config: type[Any], name: str = "janusflow") -> Layout:
    """Return the layout of `save_pretrained`: configuration and processor save themselves, parameters keep their names.

    Args:
        config: class of the configuration, whose `model_type` identifies the layout.
    """

    def write(values: Any, processor: JanusFlowProcessor, folder: Path, dtype: str) -> None:
        processor.save_pretrained(folder)
        values.dtype = dtype
        values.save_pretrained(folder)

    return Layout(
        name,
        detect=lambda raw, files: raw.get("model_type") == config.model_type,
        read_config=lambda raw, ids, names: config.from_dict(raw),
        write=write,
    )
