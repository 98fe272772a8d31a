"""Peak memory while JanusFlow-1.3B loads, divided by the size of its weights (bar: 1.2).

It writes a checkpoint of that size in the official layout with random weights, 4.1 GB, to a temporary folder.

    python benchmarks/loading.py --dtype bfloat16
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from janusflow.checkpoint import load_network, open_checkpoint
from janusflow.checkpoint.layouts import official
from janusflow.config import janusflow_1b
from janusflow.model import JanusFlowForConditionalGeneration

TEMPLATE = Path(__file__).parents[1] / "tests" / "golden" / "janusflow-small-a"


def make(folder: Path) -> None:
    """Write an official checkpoint of the released size, one shard per part so that this needs little memory."""
    raw = json.loads((TEMPLATE / "config.json").read_text())
    del raw["small_vision_tower"]
    config = janusflow_1b()
    text, width = config.text_config, config.generation_encoder_width
    raw["language_config"] = {k: getattr(text, k) for k in raw["language_config"] if k != "torch_dtype"}
    raw["torch_dtype"] = "bfloat16"
    raw["vision_und_enc_config"]["params"]["image_size"] = config.image_size
    for block in ("vision_gen_enc_config", "vision_gen_dec_config"):
        raw[block]["params"].update(block_out_channels=[width], hidden_size=text.hidden_size)
    raw["vision_gen_dec_config"]["params"]["in_channels"] = width
    (folder / "config.json").write_text(json.dumps(raw))
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((TEMPLATE / name).read_bytes())
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in JanusFlowForConditionalGeneration(config).named_parameters()}
    index: dict[str, str] = {}
    shards: dict[str, dict[str, torch.Size]] = {}
    for ours, shape in shapes.items():
        for name, size in official_shapes(ours, shape):
            if name not in index:
                index[name] = f"model-{ours.split('.')[0]}-{len(name) % 4}.safetensors"
                shards.setdefault(index[name], {})[name] = size
    for file, tensors in shards.items():
        made = {name: torch.empty(size, dtype=torch.bfloat16).normal_(std=0.02) for name, size in tensors.items()}
        save_file(made, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def official_shapes(ours: str, shape: torch.Size) -> list[tuple[str, torch.Size]]:
    """Return the names and shapes of the official tensors behind one of our parameters."""
    source = official.source(ours)
    if source.third is not None:
        return [(source.names[0], torch.Size([3 * shape[0], *shape[1:]]))]
    if len(source.names) == 2:  # the pool head: a query, and a key with a value
        third = shape[0] // 3
        return [(n, torch.Size([k * third, *shape[1:]])) for n, k in zip(source.names, (1, 2), strict=True)]
    return [(source.names[0], shape)]


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes.

    It does not use `ru_maxrss`, which a new process inherits from the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def load(folder: Path, dtype: str) -> None:
    """Load in this process and print what it took."""
    started = time.perf_counter()
    network = load_network(open_checkpoint(folder), dtype=getattr(torch, dtype), device=torch.device("cpu"))
    seconds = time.perf_counter() - started
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    print(
        f"{dtype}: {sum(p.numel() for p in network.parameters()):,} parameters, weights {weights / 1e9:.2f} GB, "
        f"peak of the whole process {peak() / 1e9:.2f} GB = {peak() / weights:.3f} x the weights, {seconds:.1f} s"
    )


def main(
    folder: Annotated[Path | None, typer.Option(help="Official checkpoint; by default one is made.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype to load in.")] = "bfloat16",
    inside: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measure in a fresh process."""
    if inside:
        assert folder is not None
        load(folder, dtype)
        return
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            folder = Path(made)
            make(folder)
        subprocess.run([sys.executable, __file__, "--folder", folder, "--dtype", dtype, "--inside"], check=True)


if __name__ == "__main__":
    typer.run(main)
