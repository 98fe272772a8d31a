"""Write weights in a layout with other names, fused projections and the released shapes.

Converting a checkpoint to our layout and back gives the same bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from janusflow.families.layout import Layout, Source
from janusflow.folders import put_together
from janusflow.processing.processor import JanusFlowProcessor


def export(
    layout: Layout,
    config: Any,
    weights: Mapping[str, Tensor],
    processor: JanusFlowProcessor,
    folder: str | Path,
    *,
    licence: Path | None = None,
) -> Path:
    """Write a folder in a layout, complete or not at all.

    Args:
        weights: parameters of the network by our names, in the dtype that is written.
        folder: folder to write; older weights in it are removed.
        licence: a file to copy into it.
    """
    assert layout.write is not None
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    with put_together(Path(folder)) as temporary:
        layout.write(config, processor, temporary, dtype)
        stored = dict(sorted(stored_tensors(weights, weights.__getitem__, layout.source)))
        save_file(stored, temporary / "model.safetensors", metadata={"format": "pt"})
        if licence is not None:
            shutil.copy(licence, temporary)
    return Path(folder)


def stored_tensors(
    names: Iterable[str], read: Callable[[str], Tensor], translate: Callable[[str], Source]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a layout from a network's parameters, one at a time.

    Args:
        translate: `Layout.source`.
    """
    places = {name: translate(name) for name in names}
    fused: dict[str, list[str]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].third or 0):
        if place.third is not None:
            fused.setdefault(place.names[0], []).append(name)
    for official, parts in fused.items():
        yield official, torch.cat([read(name) for name in parts])
    for name, place in places.items():
        if place.third is not None:
            continue
        value = read(name)
        if len(place.names) == 2:  # the pool head: one third is the query, two are key and value
            query = value.shape[0] // 3
            yield place.names[0], value[:query].contiguous()
            yield place.names[1], value[query:].contiguous()
        else:
            yield place.names[0], (value[None] if place.names[0].endswith("pos_embed") else value).contiguous()
