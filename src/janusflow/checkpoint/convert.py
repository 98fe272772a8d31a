"""From any layout into ours or the official one, tensor by tensor: the model is never in memory as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from janusflow.checkpoint.export import official_config, official_tensors, write_processor
from janusflow.checkpoint.load import Checkpoint, empty_network, find_sources, open_checkpoint, read_parameter
from janusflow.device import resolve_dtype
from janusflow.processor import JanusFlowProcessor
from janusflow.progress import progress_bar

LAYOUTS = ("janusflow", "official")
SHARD_BYTES = 4 * 10**8  # held twice while a file is written
CARD = """---
license: other
license_name: deepseek
library_name: janusflow
---

# {title}

Written by `janusflow convert` from `{source}` in the {layout} layout; the weights are those of the source.

The released JanusFlow weights, and what is made of them, stand under the
[DeepSeek Model License](https://github.com/deepseek-ai/DeepSeek-LLM/blob/HEAD/LICENSE-MODEL).
"""


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    to: str = "janusflow",
    dtype: str = "auto",
    sft_format: str | None = None,
    progress: bool = True,
) -> Path:
    """Writes a checkpoint in another layout, beside its place and then renamed.

    Args:
        source: "tiny", a folder or a hub id, in any layout that `open_checkpoint` knows.
        folder: the new one.
        to: "janusflow" or "official".
        dtype: of the written weights; "auto" leaves each tensor as it is stored.
        sft_format: another chat template than the source's.
        progress: whether to show a bar.

    Returns:
        The new folder.

    Raises:
        ValueError: if the folder exists, or the source cannot be opened or converted. Nothing is left behind then.
    """
    folder = Path(folder)
    if to not in LAYOUTS:
        raise ValueError(f"to is {to!r}; allowed are {', '.join(LAYOUTS)}")
    if folder.exists():
        raise ValueError(f"{str(folder)!r} exists already; give a new folder")
    kind = None if dtype == "auto" else resolve_dtype(dtype, torch.float32)
    checkpoint = open_checkpoint(source)
    processor = JanusFlowProcessor.from_pretrained(
        checkpoint.folder, num_image_tokens=checkpoint.config.num_understanding_tokens, sft_format=sft_format
    )
    beside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        processor.save_pretrained(beside)
        with progress_bar("converting", len(checkpoint.tensors), shown=progress) as advance:
            stored = Shards(beside)
            for name, tensor in _tensors(checkpoint, official=to == "official"):
                stored.add(name, tensor if kind is None else tensor.to(kind))
                advance()
            stored.close()
        _write_config(checkpoint, processor, beside, to, kind or checkpoint.dtype)
        _take_along(checkpoint.folder, beside)
        if checkpoint.layout == "official":
            card = CARD.format(title=folder.name, source=source, layout=to)
            (beside / "README.md").write_text(card, encoding="utf-8")
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


class Shards:
    """Weight files of about `SHARD_BYTES`, and their index if there are several.

    Args:
        folder: theirs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, 0
        self.held: dict[str, Tensor] = {}
        self.home: dict[str, str] = {}
        self.bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """One tensor; a full file is written."""
        size = sum(one.nbytes for one in self.held.values())
        if self.held and size + tensor.nbytes > SHARD_BYTES:
            self._write()
        self.held[name] = tensor.contiguous().clone()
        self.bytes += tensor.nbytes

    def close(self) -> None:
        """Writes the last file, and gives all their final names."""
        self._write()
        if self.files == 1:
            (self.folder / _part(1)).rename(self.folder / "model.safetensors")
            return
        names = {_part(n): f"model-{n:05d}-of-{self.files:05d}.safetensors" for n in range(1, self.files + 1)}
        for before, after in names.items():
            (self.folder / before).rename(self.folder / after)
        index = {
            "metadata": {"total_size": self.bytes},
            "weight_map": {name: names[file] for name, file in sorted(self.home.items())},
        }
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _write(self) -> None:
        if not self.held:
            return
        self.files += 1
        file = self.folder / _part(self.files)
        save_file(self.held, file, metadata={"format": "pt"})
        file.chmod(0o644)
        self.home.update(dict.fromkeys(self.held, file.name))
        self.held = {}


def _part(number: int) -> str:
    return f"model-{number:05d}.safetensors"


def _tensors(checkpoint: Checkpoint, *, official: bool) -> Iterator[tuple[str, Tensor]]:
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    sources = find_sources(checkpoint, network)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def read(name: str) -> Tensor:
        return read_parameter(checkpoint, sources[name], shapes[name])

    if official:
        yield from official_tensors(shapes, read)
    else:
        yield from ((name, read(name)) for name in shapes)


def _write_config(
    checkpoint: Checkpoint, processor: JanusFlowProcessor, folder: Path, to: str, dtype: torch.dtype
) -> None:
    name = str(dtype).removeprefix("torch.")
    if to == "official":
        raw: dict[str, Any] = official_config(checkpoint.config, name)
        (folder / "config.json").write_text(json.dumps(raw, indent=1) + "\n")
        write_processor(processor, folder)
    else:
        checkpoint.config.dtype = name
        checkpoint.config.architectures = ["JanusFlowForConditionalGeneration"]
        checkpoint.config.save_pretrained(folder)


def _take_along(source: Path, folder: Path) -> None:
    """The VAE, the licence and (of our layout) the model card, where the source has them."""
    if (source / "vae").is_dir():
        shutil.copytree(source / "vae", folder / "vae")
    for file in (*source.glob("LICENSE*"), *source.glob("README.md")):
        shutil.copy(file, folder)
