"""What a layout is: how a folder stores a configuration and weights. Each is a file in `checkpoint/layouts`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.processing.processor import JanusFlowProcessor


@dataclass(frozen=True)
class Source:
    """Where a parameter of a network lies in a layout.

    Attributes:
        names: stored tensors, concatenated along their first axis.
        third: which third of the rows is meant (0, 1, 2: query, key, value), or None for all of them.
    """

    names: tuple[str, ...]
    third: int | None = None


def same_name(name: str) -> Source:
    """The tensor of the parameter's own name."""
    return Source((name,))


@dataclass(frozen=True)
class Layout:
    """One way to store networks of a family.

    Attributes:
        name: as `convert` takes it and `info` shows it.
        detect: `(config.json, weight files) -> bool`; the files are empty where none were fetched.
        read_config: `(config.json, ids of special tokens, names of tensors) -> configuration`. The ids are read from
            `tokenizer.json` only for released layouts; the names are None where no weights were fetched.
        source: `parameter -> Source`.
        write: `(configuration, processor, folder, dtype)` writes everything but the weights; None if nothing is written
            in this layout.
        released: whether it is one that released weights have: without ids of special tokens and without a VAE.
        unused: how the names of tensors begin that it holds and the network has no use for.
    """

    name: str
    detect: Callable[[Mapping[str, Any], Sequence[Path]], bool]
    read_config: Callable[[dict[str, Any], dict[str, int], Collection[str] | None], Any]
    source: Callable[[str], Source] = same_name
    write: Callable[[Any, JanusFlowProcessor, Path, str], None] | None = None
    released: bool = False
    unused: tuple[str, ...] = ()


def own_layout(config: type[Any], name: str = "janusflow") -> Layout:
    """The layout of `save_pretrained`: a configuration's and a processor's own files, parameters by their own names.

    Args:
        config: class of the configuration, whose `model_type` tells the layout.
        name: of the layout.
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
