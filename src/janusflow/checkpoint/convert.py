"""From any layout into ours or the official one, tensor by tensor: the model is never in memory as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janusflow.checkpoint.export import official_config, official_tensors, write_processor
from janusflow.checkpoint.load import Checkpoint, empty_network, find_sources, open_checkpoint, read_parameter
from janusflow.checkpoint.tensors import DTYPES
from janusflow.device import resolve_dtype
from janusflow.processor import JanusFlowProcessor
from janusflow.progress import progress_bar

LAYOUTS = ("janusflow", "official")
SHARD_BYTES = 5 * 10**9
NAMES = {dtype: name for name, dtype in DTYPES.items()}
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
        files, tensors = _plan_and_tensors(checkpoint, to, kind)
        with progress_bar("converting", sum(map(len, files)), shown=progress) as advance:
            write(beside, files, _counted(tensors, advance))
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


@dataclass(frozen=True)
class Entry:
    """A tensor that is going to be written: its place in the file's data is [begin, end)."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def plan(tensors: Iterable[tuple[str, Tensor]]) -> list[list[Entry]]:
    """The files that tensors (on the meta device, in the order they will come) are written to, and where in them."""
    files: list[list[Entry]] = [[]]
    for name, tensor in tensors:
        begin = files[-1][-1].end if files[-1] else 0
        if files[-1] and begin + tensor.nbytes > SHARD_BYTES:
            files.append([])
            begin = 0
        files[-1].append(Entry(name, tensor.dtype, tuple(tensor.shape), begin, begin + tensor.nbytes))
    return files


def write(folder: Path, files: list[list[Entry]], tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Writes safetensors files, each tensor as it comes, and an index if there are several.

    The safetensors library itself writes a file only from tensors that are all in memory.
    """
    home: dict[str, str] = {}
    for number, entries in enumerate(files, start=1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        with (folder / name).open("wb") as stream:
            stream.write(_header(entries))
            for entry in entries:
                found, tensor = next(tensors)
                assert (found, tensor.dtype, tuple(tensor.shape)) == (entry.name, entry.dtype, entry.shape)
                stream.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        home.update({entry.name: name for entry in entries})
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(entries[-1].end for entries in files)}, "weight_map": home}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _header(entries: list[Entry]) -> bytes:
    """The beginning of a safetensors file: the length of the JSON that follows, and that, padded to 8 bytes."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for entry in entries:
        place = [entry.begin, entry.end]
        fields[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": place}
    content = json.dumps(fields, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _plan_and_tensors(
    checkpoint: Checkpoint, to: str, kind: torch.dtype | None
) -> tuple[list[list[Entry]], Iterator[tuple[str, Tensor]]]:
    """Where everything goes, and then everything, one tensor at a time."""
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    sources = find_sources(checkpoint, network)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def read(name: str) -> Tensor:
        tensor = read_parameter(checkpoint, sources[name], shapes[name])
        return tensor if kind is None else tensor.to(kind)

    def meta(name: str) -> Tensor:
        stored = checkpoint.tensors.dtypes[sources[name].names[0]]
        return torch.empty(shapes[name], dtype=kind or stored, device="meta")

    def arranged(give: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        if to == "official":
            return official_tensors(shapes, give)
        return ((name, give(name)) for name in shapes)

    return plan(arranged(meta)), arranged(read)


def _counted(tensors: Iterator[tuple[str, Tensor]], advance: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    for one in tensors:
        yield one
        advance()


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
