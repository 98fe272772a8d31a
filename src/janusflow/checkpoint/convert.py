"""Convert a checkpoint from any layout into another one of its family, tensor by tensor.

Tensors of the source that the network does not use are written to a separate file, so that converting back is exact.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janusflow.arguments import quoted
from janusflow.checkpoint.card import write_card
from janusflow.checkpoint.export import stored_tensors
from janusflow.checkpoint.load import Checkpoint, empty_network, find_sources, open_checkpoint, read_parameter
from janusflow.checkpoint.special_tokens import open_processor, set_special_tokens
from janusflow.checkpoint.tensors import DTYPES, EXTRAS
from janusflow.device import resolve_dtype
from janusflow.families import find_layout
from janusflow.families.layout import Layout
from janusflow.files import temporary_path
from janusflow.folders import read_json
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.progress import progress_bar
from janusflow.vae import DEFAULT_VAE, PREVIEW_DECODER, LatentCodec, check_vae

SHARD_BYTES = 5 * 10**9
PIECE = 1 << 24  # values that are cast at once
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    to: str = "janusflow",
    dtype: str = "auto",
    sft_format: str | None = None,
    vae: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Write a checkpoint in another layout. The folder is complete or does not exist.

    Args:
        source: "tiny", a folder or a hub id, in any layout that `open_checkpoint` knows.
        folder: the new folder.
        to: a layout of the family: "janusflow", "official" or, for Janus, "transformers", which is the same as
            "janusflow" there.
        dtype: dtype of the written weights; "auto" keeps the dtype of each tensor.
        sft_format: chat template to use in place of the source's.
        vae: for JanusFlow, folder or hub id of a VAE to copy to the new folder's `vae`; by default the source's, if it
            has one.
        progress: whether to show a bar.

    Returns:
        The new folder.

    Raises:
        ValueError: if the folder exists, or the source cannot be opened or converted. Nothing is left behind.

    Example:
        >>> from janusflow import JanusFlow
        >>> folder = convert("tiny", "official", to="official", progress=False)
        >>> JanusFlow.from_pretrained(folder).origin.layout.name
        'official'
    """
    folder = Path(folder).expanduser()
    if folder.exists():
        raise ValueError(f"{quoted(str(folder))} already exists; give a new folder")
    kind = None if dtype == "auto" else resolve_dtype(dtype, torch.float32)
    checkpoint = open_checkpoint(source)
    try:
        layout = checkpoint.family.layout(to)
        layout.check(checkpoint.config)
    except ValueError as error:
        raise ValueError(f"{checkpoint.folder}: {error}") from error
    if vae is not None and not checkpoint.family.separate_vae:
        raise ValueError(
            f"{checkpoint.folder} is a {checkpoint.family.name}, which has its own codec; leave out vae={str(vae)!r}"
        )
    codec = None if vae is None else _open_vae(vae, checkpoint)
    processor = open_processor(checkpoint, sft_format=sft_format)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(folder) as temporary:
        temporary.mkdir()
        _write_layout(checkpoint, layout, processor, temporary, kind, progress=progress)
        _write_vae(codec, checkpoint, temporary)
        name = checkpoint.folder.name if Path(source).expanduser().is_dir() else source
        cast = "" if kind is None else f", cast to {str(kind).removeprefix('torch.')}"
        text = f"Written by `janusflow convert` from `{name}` in the {to} layout; the weights are the source's{cast}."
        text = f"{text} {where_vae_is(temporary)}".rstrip()
        write_card(temporary, checkpoint, title=folder.name, text=text)
        temporary.rename(folder)
    return folder


def _write_layout(
    checkpoint: Checkpoint,
    layout: Layout,
    processor: JanusFlowProcessor,
    folder: Path,
    kind: torch.dtype | None,
    *,
    progress: bool,
) -> None:
    """Write everything that a layout has: weights, configuration, processor and, in ours, generation settings."""
    files, tensors = _plan_and_tensors(checkpoint, layout, kind)
    with progress_bar("converting", sum(map(len, files)), shown=progress) as advance:
        write(folder, files, _counted(tensors, advance))
    if not layout.unused:
        write_extras(checkpoint, folder, kind)
    generation = set_special_tokens(checkpoint.config, processor)
    checkpoint.config.architectures = [checkpoint.family.network.__name__]
    assert layout.write is not None
    layout.write(checkpoint.config, processor, folder, str(kind or checkpoint.dtype).removeprefix("torch."))
    if not layout.released:
        generation.save_pretrained(folder)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written to the bytes [begin, end) of a file's data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def plan(tensors: Iterable[tuple[str, Tensor]]) -> list[list[Entry]]:
    """Assign tensors (on the meta device, in their final order) to files and to places in them."""
    files: list[list[Entry]] = [[]]
    for name, tensor in tensors:
        begin = files[-1][-1].end if files[-1] else 0
        if files[-1] and begin + tensor.nbytes > SHARD_BYTES:
            files.append([])
            begin = 0
        files[-1].append(Entry(name, tensor.dtype, tuple(tensor.shape), begin, begin + tensor.nbytes))
    return files


def write(
    folder: Path, files: list[list[Entry]], tensors: Iterator[tuple[str, Tensor]], alone: str = "model.safetensors"
) -> None:
    """Write safetensors files one tensor at a time, and an index if there are several; `alone` names a single file.

    A tensor with another dtype than its entry is cast in pieces, so that it is never in memory twice.
    The safetensors library can only write files from tensors that are all in memory.
    """
    home: dict[str, str] = {}
    for number, entries in enumerate(files, start=1):
        name = alone if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        with (folder / name).open("wb") as stream:
            stream.write(_header(entries))
            for entry in entries:
                found, tensor = next(tensors)
                assert (found, tuple(tensor.shape)) == (entry.name, entry.shape)
                for piece in tensor.contiguous().flatten().split(PIECE):
                    stream.write(piece.to(entry.dtype).view(torch.uint8).numpy().data)
        home.update({entry.name: name for entry in entries})
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(entries[-1].end for entries in files)}, "weight_map": home}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _header(entries: list[Entry]) -> bytes:
    """Return the header of a safetensors file: the length of the JSON, and the JSON padded to 8 bytes."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for entry in entries:
        place = [entry.begin, entry.end]
        fields[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": place}
    content = json.dumps(fields, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _plan_and_tensors(
    checkpoint: Checkpoint, layout: Layout, kind: torch.dtype | None
) -> tuple[list[list[Entry]], Iterator[tuple[str, Tensor]]]:
    """Return the plan of the files, and the tensors one at a time."""
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    sources = find_sources(checkpoint, network)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def read(name: str) -> Tensor:
        return read_parameter(checkpoint, sources[name], shapes[name])

    def meta(name: str) -> Tensor:
        stored = checkpoint.tensors.dtypes[sources[name].names[0]]
        return torch.empty(shapes[name], dtype=kind or stored, device="meta")

    def arranged(give: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        return stored_tensors(shapes, give, layout.source)

    extras = _extra_names(checkpoint) if layout.unused else []
    entries = plan([*arranged(meta), *((name, _meta_of(checkpoint, name, kind)) for name in extras)])
    return entries, itertools.chain(arranged(read), checkpoint.tensors.read(extras))


def _extra_names(checkpoint: Checkpoint) -> list[str]:
    """Return the names of stored tensors that the network does not use."""
    return [name for name in checkpoint.tensors if name.startswith(checkpoint.family.unused)]


def _meta_of(checkpoint: Checkpoint, name: str, kind: torch.dtype | None) -> Tensor:
    return torch.empty(checkpoint.tensors.shapes[name], dtype=kind or checkpoint.tensors.dtypes[name], device="meta")


def write_extras(checkpoint: Checkpoint, folder: Path, kind: torch.dtype | None = None) -> None:
    """Write the tensors of a checkpoint that its network does not use to a separate file."""
    if names := _extra_names(checkpoint):
        entries = plan((name, _meta_of(checkpoint, name, kind)) for name in names)
        write(folder, entries, checkpoint.tensors.read(names), alone=EXTRAS)


def _counted(tensors: Iterator[tuple[str, Tensor]], advance: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    for one in tensors:
        yield one
        advance()


def _open_vae(vae: str | Path, checkpoint: Checkpoint) -> LatentCodec:
    """Open a VAE in float32, as it is released, and check that it fits the network."""
    codec = LatentCodec.from_pretrained(vae, dtype=torch.float32, device=torch.device("cpu"))
    check_vae(codec, vae, checkpoint.config)
    return codec


def _write_vae(codec: LatentCodec | None, checkpoint: Checkpoint, folder: Path) -> None:
    """Write the given VAE, or else copy the source's with its small decoder, if it has them."""
    if codec is not None:
        codec.save_pretrained(folder / "vae")
    elif (checkpoint.folder / "vae").is_dir():
        for part in ("vae", PREVIEW_DECODER):
            if (checkpoint.folder / part).is_dir():
                shutil.copytree(checkpoint.folder / part, folder / part)


def where_vae_is(folder: Path) -> str:
    """Describe where the VAE is for a released layout, which does not contain one; "" for other folders."""
    found = find_layout(read_json(folder / "config.json"))
    if found is None or not (found[0].separate_vae and found[1].released):
        return ""
    if (folder / "vae").is_dir():
        return 'Its VAE is in the folder `vae`: `AutoencoderKL.from_pretrained(FOLDER, subfolder="vae")` opens it.'
    return (
        f"The official layout contains no VAE, which pixels need: the official code downloads {DEFAULT_VAE}; "
        "`janusflow convert --vae FOLDER_OR_ID` includes it."
    )
