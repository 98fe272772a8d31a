"""Peak memory while a checkpoint of the released size is converted (bar: 2 GB, whatever the model's size).

python benchmarks/converting.py --to official
python benchmarks/converting.py --family janus --to transformers --pickled
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from janus import sizes
from loading import make, peak
from safetensors.torch import load_file

from janusflow.checkpoint.convert import convert, plan, write
from janusflow.checkpoint.export import stored_tensors
from janusflow.checkpoint.layouts import official_janus
from janusflow.model.janus import JanusForConditionalGeneration

TEMPLATE = Path(__file__).parents[1] / "tests" / "golden" / "janus-small-a"


def make_janus(folder: Path) -> None:
    """Write an official Janus of the 1.3B size with random weights, tensor by tensor."""
    config = sizes(24, small=False)
    raw = official_janus.official_config(config, "bfloat16")
    (folder / "config.json").write_text(json.dumps(raw))
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((TEMPLATE / name).read_bytes())
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in JanusForConditionalGeneration(config).named_parameters()}
    kind = torch.bfloat16
    meta = stored_tensors(shapes, lambda n: torch.empty(shapes[n], dtype=kind, device="meta"), official_janus.source)
    made = stored_tensors(shapes, lambda n: torch.randn(shapes[n]).to(kind), official_janus.source)
    write(folder, plan(meta), made)


def pickled(folder: Path) -> None:
    """Replace the weights of a folder with `pytorch_model-*.bin` shards of about half a gigabyte and their index."""
    home: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shards: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
        done = 0
        for name, tensor in load_file(file).items():
            done += tensor.nbytes
            shards[done // 500_000_000][name] = tensor
        file.unlink()
        for number, tensors in shards.items():
            shard = f"pytorch_model-{file.stem}-{number}.bin"
            torch.save({name: tensor.clone() for name, tensor in tensors.items()}, folder / shard)
            home.update(dict.fromkeys(tensors, shard))
    for index in folder.glob("*.index.json"):
        index.unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": home}))


def main(
    to: Annotated[str, typer.Option(help="janusflow, official or transformers.")] = "janusflow",
    family: Annotated[str, typer.Option(help="janusflow or janus.")] = "janusflow",
    as_pickles: Annotated[bool, typer.Option("--pickled", help="From sharded .bin files.")] = False,
    source: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure in a fresh process."""
    if source is not None:
        started = time.perf_counter()
        folder = convert(source, source.parent / "converted", to=to)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        seconds = time.perf_counter() - started
        print(
            f"to {to}: {size / 1e9:.2f} GB written in {seconds:.0f} s, peak of the whole process {peak() / 1e9:.2f} GB"
        )
        return
    with tempfile.TemporaryDirectory() as made:
        place = Path(made) / "official"
        place.mkdir()
        (make_janus if family == "janus" else make)(place)
        if as_pickles:
            pickled(place)
        subprocess.run([sys.executable, __file__, "--to", to, "--source", place], check=True)


if __name__ == "__main__":
    typer.run(main)
