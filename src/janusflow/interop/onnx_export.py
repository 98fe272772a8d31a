"""`janusflow convert --to onnx`: graphs for ONNX Runtime next to the weights that they read.

The folder has our layout in float32, with a file for each graph. The graphs contain no weights: they refer to their
places in the safetensors files, so that the LLM, which two graphs need, is stored once, and `from_pretrained` still
opens the folder. `onnx.json` contains what a program without PyTorch and this package needs.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from janusflow.arguments import quoted
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.convert import convert
from janusflow.device import CPU
from janusflow.extras import require
from janusflow.files import temporary_path
from janusflow.interop.onnx_check import relative_errors
from janusflow.interop.onnx_graphs import Graph, cache_shape, graphs_of
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.progress import progress_bar
from janusflow.vae import LatentCodec

LIMIT = 1e-4  # largest relative error that is accepted
OPSET = 18
PROMPT = "{prompt}"  # stands for the text in the templates of `onnx.json`


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Attributes:
        folder: the new folder.
        errors: for each graph, max |ONNX Runtime - PyTorch| / max |PyTorch|.
    """

    folder: Path
    errors: dict[str, float]


def export_onnx(
    source: str | Path,
    folder: str | Path,
    *,
    sft_format: str | None = None,
    vae: str | Path | None = None,
    progress: bool = True,
) -> Exported:
    """Write a JanusFlow model as ONNX graphs and compare them with the network.

    The folder is complete or does not exist. Batch size and numbers of tokens are free; the size of pictures is the
    trained one.

    Args:
        source: "tiny", a folder or a hub id, in any layout.
        folder: the new folder.
        sft_format: a chat template to use instead of the source's.
        vae: folder or hub id of a VAE to include, if the source has none. Without a VAE there is no `vae_decoder`.
        progress: whether to show a bar.

    Raises:
        ValueError: if the extra `[onnx]` is missing, the folder exists, the source is not a JanusFlow that understands
            pictures by SigLIP, or a graph differs from the network by more than `LIMIT`. Nothing is left behind.

    Example:
        >>> exported = export_onnx("tiny", "graphs", progress=False)  # doctest: +SKIP
        >>> max(exported.errors.values()) < 1e-4  # doctest: +SKIP
        True
    """
    require("convert --to onnx", "onnx", "onnxscript", "onnxruntime")
    folder = Path(folder).expanduser()
    if folder.exists():
        raise ValueError(f"{quoted(str(folder))} already exists; give a new folder")
    check_source(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(folder) as temporary:
        inner = temporary / folder.name
        convert(source, inner, dtype="float32", sft_format=sft_format, vae=vae, progress=progress)
        model = JanusFlow.from_pretrained(inner, dtype=torch.float32, device=CPU, progress=False)
        codec = None
        if (inner / "vae").is_dir():
            codec = contiguous(model.codec)
            codec.save_pretrained(inner / "vae")  # in float32, whatever it was stored in
        files = write_graphs(graphs_of(model.network, codec), model, inner, progress=progress)
        errors = relative_errors(model.network, codec, files)
        if wrong := {name: error for name, error in errors.items() if not error <= LIMIT}:
            found = ", ".join(f"{name} by {error:.1e}" for name, error in wrong.items())
            raise ValueError(f"graphs differ from the network in ONNX Runtime: {found}; at most {LIMIT:.0e} is allowed")
        write_settings(model.network, model.processor, errors, inner)
        inner.rename(folder)
    return Exported(folder, errors)


def check_source(source: str | Path) -> None:
    """Reject models that have no such graphs.

    Raises:
        ValueError: if the model is another one; says which.
    """
    checkpoint = open_checkpoint(source)
    if not issubclass(checkpoint.family.network, JanusFlowForConditionalGeneration):
        raise ValueError(f"{checkpoint.folder} is a {checkpoint.family.name}; only JanusFlow models become ONNX graphs")
    if (encoder := checkpoint.config.understanding_encoder) != "siglip":
        raise ValueError(
            f"{checkpoint.folder} has the understanding encoder {quoted(encoder)}; only models with siglip become ONNX "
            "graphs"
        )


def contiguous(codec: LatentCodec) -> LatentCodec:
    """Lay out the weights of a codec in memory as they are in its file, and return the codec."""
    codec.vae.to(memory_format=torch.contiguous_format)
    return codec


def write_graphs(graphs: list[Graph], model: JanusFlow, folder: Path, *, progress: bool) -> dict[str, Path]:
    """Write `NAME.onnx` for each graph; weights that a safetensors file of the folder contains stay there.

    Returns:
        The files, by name of the graph.
    """
    parts: dict[str, nn.Module] = {".": model.network}
    if (folder / "vae").is_dir():
        parts["vae"] = model.codec.vae
    stored = {
        parameter.data_ptr(): where[key]
        for name, part in parts.items()
        for where in [stored_places(folder / name, folder)]
        for key, parameter in part.named_parameters()
        if key in where
    }
    files = {}
    with progress_bar("exporting", len(graphs), shown=progress) as advance, _quiet():
        for graph in graphs:
            files[graph.name] = folder / f"{graph.name}.onnx"
            _write(graph, stored, files[graph.name])
            advance()
    return files


@dataclass(frozen=True)
class Place:
    """The location of a tensor in a file.

    Attributes:
        file: path relative to the folder of the graphs.
        offset, length: in bytes.
    """

    file: str
    offset: int
    length: int


def stored_places(part: Path, folder: Path) -> dict[str, Place]:
    """Return the locations of the float32 tensors in a folder's safetensors files."""
    places = {}
    for file in sorted(part.glob("*.safetensors")):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] == "F32":
                begin, end = entry["data_offsets"]
                places[name] = Place(file.relative_to(folder).as_posix(), 8 + size + begin, end - begin)
    return places


def _write(graph: Graph, stored: dict[int, Place], file: Path) -> None:
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript.optimizer import optimize_ir

    program = torch.onnx.export(
        graph.module.eval(),
        tuple(graph.inputs.values()),
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset_version=OPSET,
        dynamic_shapes=tuple(dict(graph.dynamic[name]) for name in graph.inputs),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    # By default, the weights of linear layers would be transposed, whatever their size, and become part of the graph.
    optimize_ir(program.model, should_fold=lambda node: False if node.op_type == "Transpose" else None)
    for value in program.model.graph.initializers.values():
        raw = getattr(value.const_value, "raw", None)
        if not isinstance(raw, torch.Tensor) or (place := stored.get(raw.data_ptr())) is None:
            continue  # a constant that is not a weight
        assert raw.is_contiguous() and raw.nbytes == place.length, (value.name, place)
        value.const_value = onnx_ir.ExternalTensor(
            place.file,
            place.offset,
            place.length,
            onnx_ir.DataType.FLOAT,
            shape=onnx_ir.Shape(raw.shape),
            name=str(value.name),
            base_dir=file.parent,
        )
    ClearMetadataAndDocStringPass()(program.model)  # such as stack traces with the paths of this machine
    onnx_ir.save(program.model, file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's warnings, which are about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def write_settings(
    network: JanusFlowForConditionalGeneration,
    processor: JanusFlowProcessor,
    errors: dict[str, float],
    folder: Path,
) -> None:
    """Write `onnx.json`: prompt templates, special tokens, shapes, and the error of each graph."""
    config, tokenizer, text = network.config, processor.tokenizer, processor.text
    question = processor.render([{"role": "user", "content": processor.question(PROMPT, 1)}])
    settings: dict[str, Any] = {
        "relative_errors": errors,
        "prompt": processor.render_prompt(PROMPT),
        "question": question,
        "placeholder": text.image_tag,
        "begin_of_image": processor.image_start_id,
        "end_of_image": processor.image_end_id,
        "end_of_sentence": tokenizer.eos_token_id,
        "latent": [config.latent_channels, config.latent_size, config.latent_size],
        "cache": list(cache_shape(config, 1, 0)),
        "context": config.text_config.max_position_embeddings,
    }
    (folder / "onnx.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
