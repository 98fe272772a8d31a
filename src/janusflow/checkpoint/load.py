"""Open a checkpoint: find the folder, detect its layout, and fill a network tensor by tensor.

Each weight is read, cast, copied to its place and released, so safetensors files are never in memory twice.
`tensors.py` reads the files, and `families.find_layout` detects the layout.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.initialization import no_init_weights

from janusflow.arguments import quoted, shortened
from janusflow.building import BUILDING, NAMED, finite, named
from janusflow.checkpoint.tensors import TensorFiles
from janusflow.families import Family, families, find_layout
from janusflow.families.layout import Layout, Source
from janusflow.families.sizes import check_sizes
from janusflow.files import checked
from janusflow.folders import TINY, find_folder, read_json
from janusflow.offline import first_line

SPARE = 2**20  # values that a network has beyond its weights, such as positions
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange)
IGNORED = ("rotary_emb.inv_freq",)  # a constant that old LLM checkpoints store


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose configuration has been read, but not its weights.

    Attributes:
        folder: folder of the checkpoint.
        family: family of the network.
        layout: how it is stored.
        config: the network's dimensions.
        tensors: its weight files.
    """

    folder: Path
    family: Family
    layout: Layout
    config: Any
    tensors: TensorFiles

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in the configuration, or else the most frequent one of the stored weights."""
        wanted = self.config.dtype
        if isinstance(wanted, str):
            wanted = getattr(torch, wanted, None)
        return wanted or max(self.tensors.dtypes.values(), key=list(self.tensors.dtypes.values()).count)


def open_checkpoint(path_or_id: str | Path) -> Checkpoint:
    """Read the configuration and the headers of the weight files.

    Raises:
        ValueError: if the folder, its `config.json` or its weights are missing, damaged or of an unknown kind.

    Example:
        >>> checkpoint = open_checkpoint("tiny")
        >>> checkpoint.family.name, checkpoint.layout.name, checkpoint.config.image_size
        ('JanusFlow', 'janusflow', 64)
    """
    folder = find_folder(path_or_id)
    raw = read_json(folder / "config.json")
    _find_layout(folder, raw)  # fails before unrelated weights are read
    tensors = TensorFiles(folder)
    family, layout = _find_layout(folder, raw, tensors.files)
    return Checkpoint(folder, family, layout, _read_config(family, layout, raw, folder, tensors), tensors)


def read_sizes(path_or_id: str | Path) -> Any:
    """Read only the network's configuration; the weights of a hub id are not downloaded.

    Raises:
        ValueError: as `open_checkpoint` does.
    """
    folder = find_folder(path_or_id, weights=False)
    if str(path_or_id) == TINY or Path(path_or_id).expanduser().is_dir():
        return open_checkpoint(folder).config
    raw = read_json(folder / "config.json")
    return _read_config(*_find_layout(folder, raw), raw, folder, None)


def _find_layout(folder: Path, raw: dict[str, Any], files: Sequence[Path] = ()) -> tuple[Family, Layout]:
    found = find_layout(raw, files)
    if found is None:
        kind = quoted(raw.get("model_type"))
        raise ValueError(f"{folder / 'config.json'} describes a {kind} model, not a {' or '.join(families())} one")
    return found


def _read_config(family: Family, layout: Layout, raw: dict[str, Any], folder: Path, tensors: TensorFiles | None) -> Any:
    """Read the configuration of a network, and check its sizes, also against the weight files if there are any."""
    file = folder / "config.json"
    ids = _special_ids(folder) if layout.released else {}
    try:
        config = layout.read_config(raw, ids, tensors)
    except Exception as error:  # transformers' configurations raise many kinds of errors for damaged values
        what = shortened(" ".join(str(error).split()) or type(error).__name__)
        if isinstance(error, KeyError):
            what = f"it lacks {what}"
        elif isinstance(error, RecursionError):
            what = "it is nested too deeply"
        raise ValueError(f"{file} is incomplete or damaged: {what}") from error
    check_sizes(family, config, file, tensors=None if tensors is None else len(tensors))
    return config


@dataclass(frozen=True)
class _AddedToken:
    id: int
    content: str


def _special_ids(folder: Path) -> dict[str, int]:
    """Return the ids of the added tokens in a folder's `tokenizer.json`."""
    file = folder / "tokenizer.json"
    added = {"added_tokens": read_json(file).get("added_tokens", [])}
    return {one.content: one.id for one in checked(dict[str, list[_AddedToken]], added, file)["added_tokens"]}


def load_network(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> Any:
    """Load the network with the checkpoint's weights, in eval mode and without gradients.

    Args:
        device: device of the parameters; each tensor is moved there on its own.

    Raises:
        ValueError: if tensors are missing, surplus, misshapen or not finite numbers; names the first few.
    """
    network = empty_network(checkpoint, dtype=dtype, device=device)
    sources = find_sources(checkpoint, network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(read_parameter(checkpoint, sources[name], parameter.shape))
            advance()
    return network.eval().requires_grad_(False)


def empty_network(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Any:
    """Build the network of a configuration; its parameters are not yet filled.

    Raises:
        ValueError: if the configuration names something unknown, or sizes that do not fit together.
    """
    room = _Room(
        SPARE + 2 * sum(math.prod(shape) for shape in checkpoint.tensors.shapes.values())
    )  # tied weights twice
    try:
        with BUILDING, no_init_weights(), torch.device(device), room:
            network = checkpoint.family.network._from_config(
                copy.deepcopy(checkpoint.config), dtype=dtype
            )  # written into
    except Exception as error:  # unknown names of functions, or sizes that do not fit together
        file = checkpoint.folder / "config.json"
        reason = f"{type(error).__name__} {shortened(first_line(error))}"
        raise ValueError(f"{file} describes no network that can be built: {reason}") from error
    network.tie_weights()
    return network


class _Room(TorchFunctionMode):
    """Limits how many values are created, so that a configuration cannot take more memory than its weights.

    Args:
        values: maximum number in all tensors together.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in MAKERS:
            self.values -= function(*args, **{**kwargs, "device": "meta"}).numel()
            if self.values < 0:
                raise ValueError("its sizes are larger than those of the weights in the folder")
        return function(*args, **kwargs)


def find_sources(checkpoint: Checkpoint, network: nn.Module) -> dict[str, Source]:
    """Find where the checkpoint stores each parameter of the network.

    Raises:
        ValueError: if tensors are missing, surplus or misshapen; names the first few.
    """
    sources = {name: checkpoint.layout.source(name) for name, _ in network.named_parameters()}
    _check_names({name for wanted in sources.values() for name in wanted.names}, checkpoint)
    _check_shapes(checkpoint, [(sources[name], parameter.shape) for name, parameter in network.named_parameters()])
    return sources


def read_parameter(checkpoint: Checkpoint, wanted: Source, shape: torch.Size) -> Tensor:
    """Read one parameter in our shape; `find_sources` has checked that it fits.

    Raises:
        ValueError: if its values are not finite floating-point numbers.
    """
    pieces = [tensor for _, tensor in checkpoint.tensors.read(wanted.names)]
    value = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    value = value if wanted.third is None else value.chunk(3)[wanted.third]
    whole = [piece for piece in pieces if not piece.is_floating_point()]  # joining them with floats would convert them
    if whole or not finite(value):
        names, fault = " + ".join(wanted.names), _fault(whole[0] if whole else value)
        raise ValueError(f"{checkpoint.folder}: tensor {names} contains {fault}; download the file again")
    return value.reshape(shape)


def _fault(value: Tensor) -> str:
    if not value.is_floating_point():
        return f"{str(value.dtype).removeprefix('torch.')} values; weights are floating-point numbers"
    return "NaN or infinite values"


def _check_shapes(checkpoint: Checkpoint, wanted: list[tuple[Source, torch.Size]]) -> None:
    wrong = []
    for source, shape in wanted:
        stored = [checkpoint.tensors.shapes[name] for name in source.names]
        if (joined := _joined(stored, source)) is None or _unpadded(joined) != _unpadded(shape):
            found = " + ".join(str(tuple(one)) for one in stored)
            wrong.append(f"{' + '.join(source.names)} has shape {found}; config.json expects {tuple(shape)}")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise ValueError(
            f"{checkpoint.folder} contains {len(wrong)} misshapen tensors: {'; '.join(wrong[:NAMED])}{more}"
        )


def _joined(stored: Sequence[Sequence[int]], source: Source) -> list[int] | None:
    """Return the shape that `read_parameter` gives; None if the tensors do not fit together."""
    first, *others = ([*shape] for shape in stored)
    if others and not all(shape and shape[1:] == first[1:] for shape in (first, *others)):
        return None
    if others:
        first[0] += sum(shape[0] for shape in others)
    if source.third is None:
        return first
    return [first[0] // 3, *first[1:]] if first and first[0] % 3 == 0 else None


def _unpadded(shape: Sequence[int]) -> list[int]:
    """Drop leading ones from a shape: the official position embedding is (1, T, W), ours (T, W)."""
    sizes = list(shape)
    while len(sizes) > 1 and sizes[0] == 1:
        sizes.pop(0)
    return sizes


def _check_names(expected: set[str], checkpoint: Checkpoint) -> None:
    unused = checkpoint.family.unused
    found = {name for name in checkpoint.tensors if not name.endswith(IGNORED) and not name.startswith(unused)}
    for kind, names in (("lacks", expected - found), ("contains surplus", found - expected)):
        if names:
            raise ValueError(f"{checkpoint.folder} {kind} {named(names, 'tensors')}")
