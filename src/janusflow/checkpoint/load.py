"""Opens a checkpoint: finds the folder, tells its layout, and fills a network tensor by tensor.

A weight is read, cast and copied into its place, then forgotten: of safetensors files no second copy ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers.initialization import no_init_weights

from janusflow.checkpoint import official
from janusflow.checkpoint.files import find_folder, read_json
from janusflow.checkpoint.official import Source
from janusflow.checkpoint.tensors import TensorFiles
from janusflow.config import JanusFlowConfig
from janusflow.model import JanusFlowForConditionalGeneration

NAMED = 3  # how many names a sentence about missing or surplus tensors gives
IGNORED = ("rotary_emb.inv_freq",)  # a constant that old LLM checkpoints store


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose configuration has been read, and whose weights have not.

    Attributes:
        folder: where it lies.
        layout: "janusflow" (ours) or "official".
        config: the network's dimensions.
        tensors: its weight files.
    """

    folder: Path
    layout: str
    config: JanusFlowConfig
    tensors: TensorFiles

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the configuration asks for, else that of the largest part of the stored weights."""
        wanted = self.config.dtype
        if isinstance(wanted, str):
            wanted = getattr(torch, wanted, None)
        return wanted or max(self.tensors.dtypes.values(), key=list(self.tensors.dtypes.values()).count)


def open_checkpoint(path_or_id: str | Path) -> Checkpoint:
    """Reads the configuration and the headers of the weight files.

    Raises:
        ValueError: if the folder, its `config.json` or its weights are missing, damaged or of an unknown kind.
    """
    folder = find_folder(path_or_id)
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != JanusFlowConfig.model_type and not official.is_official(raw):
        raise ValueError(f"{folder / 'config.json'} describes a {raw.get('model_type')!r} model, not a JanusFlow one")
    layout = "official" if official.is_official(raw) else "janusflow"
    tensors = TensorFiles(folder)
    try:
        if layout == "official":
            pool_head = any("attn_pool" in name for name in tensors)
            config = official.read_config(raw, _special_ids(folder), pool_head=pool_head)
        else:
            config = JanusFlowConfig.from_dict(raw)
    except (KeyError, TypeError, AttributeError, ArithmeticError, StrictDataclassError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{folder / 'config.json'} is incomplete or damaged: {what}") from error
    return Checkpoint(folder, layout, config, tensors)


def _special_ids(folder: Path) -> dict[str, int]:
    """Ids of the added tokens of a folder's `tokenizer.json`."""
    tokens = read_json(folder / "tokenizer.json").get("added_tokens", [])
    return {token["content"]: token["id"] for token in tokens}


def load_network(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> JanusFlowForConditionalGeneration:
    """The network with the checkpoint's weights, in eval mode, without gradients.

    Args:
        checkpoint: from `open_checkpoint`.
        dtype: of the parameters.
        device: where they go; each tensor travels there alone.
        advance: called after each parameter.

    Raises:
        ValueError: if tensors are missing, surplus or misshapen: one sentence naming the first few.
    """
    network = empty_network(checkpoint, dtype=dtype, device=device)
    sources = find_sources(checkpoint, network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(read_parameter(checkpoint, sources[name], parameter.shape))
            advance()
    return network.eval().requires_grad_(False)


def empty_network(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device
) -> JanusFlowForConditionalGeneration:
    """The network of a configuration, its parameters not yet filled.

    Raises:
        ValueError: if the configuration names what does not exist, or sizes that do not go together.
    """
    try:
        with no_init_weights(), torch.device(device):
            network = JanusFlowForConditionalGeneration._from_config(checkpoint.config, dtype=dtype)
    except (KeyError, ValueError, ArithmeticError, AssertionError, AttributeError, TypeError) as error:
        file = checkpoint.folder / "config.json"
        raise ValueError(f"{file} describes no network that can be built: {type(error).__name__} {error}") from error
    network.tie_weights()
    return network


def find_sources(checkpoint: Checkpoint, network: JanusFlowForConditionalGeneration) -> dict[str, Source]:
    """Where each parameter of the network lies in the checkpoint.

    Raises:
        ValueError: if tensors are missing or surplus.
    """
    translate = official.source if checkpoint.layout == "official" else _same_name
    sources = {name: translate(name) for name, _ in network.named_parameters()}
    _check_names({name for wanted in sources.values() for name in wanted.names}, checkpoint)
    return sources


def read_parameter(checkpoint: Checkpoint, wanted: Source, shape: torch.Size) -> Tensor:
    """One parameter as the checkpoint stores it, in our shape.

    Raises:
        ValueError: if it has another shape.
    """
    pieces = [tensor for _, tensor in checkpoint.tensors.read(wanted.names)]
    joined = len(pieces) == 1 or all(p.ndim and p.shape[1:] == pieces[0].shape[1:] for p in pieces)
    value = torch.cat(pieces) if joined and len(pieces) > 1 else pieces[0]
    if joined and wanted.third is not None and value.shape[0] % 3 == 0:
        value = value.chunk(3)[wanted.third]
    if not joined or _unpadded(value.shape) != _unpadded(shape):
        names = " + ".join(wanted.names)
        raise ValueError(
            f"{checkpoint.folder}: tensor {names} has shape {_joined_shapes(wanted, checkpoint)}, "
            f"which does not fit the {tuple(shape)} that config.json asks for"
        )
    return value.reshape(shape)


def _joined_shapes(wanted: Source, checkpoint: Checkpoint) -> str:
    return " + ".join(str(checkpoint.tensors.shapes[name]) for name in wanted.names)


def _unpadded(shape: torch.Size) -> list[int]:
    """A shape without its leading ones: the official position embedding is (1, T, W), ours (T, W)."""
    sizes = list(shape)
    while len(sizes) > 1 and sizes[0] == 1:
        sizes.pop(0)
    return sizes


def _check_names(expected: set[str], checkpoint: Checkpoint) -> None:
    found = {name for name in checkpoint.tensors if not name.endswith(IGNORED)}
    for kind, names in (("lacks", expected - found), ("holds surplus", found - expected)):
        if names:
            first = ", ".join(sorted(names)[:NAMED])
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise ValueError(f"{checkpoint.folder} {kind} {len(names)} tensors: {first}{more}")


def _same_name(name: str) -> Source:
    return Source((name,))
