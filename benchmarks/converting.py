"""Peak memory while a checkpoint of JanusFlow-1.3B's size is converted (bar: 2 GB, whatever the model's size).

python benchmarks/converting.py --to janusflow
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from loading import make, peak

from janusflow.checkpoint.convert import convert


def main(
    to: Annotated[str, typer.Option(help="janusflow or official.")] = "janusflow",
    source: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measures in a fresh process."""
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
        make(place)
        subprocess.run([sys.executable, __file__, "--to", to, "--source", place], check=True)


if __name__ == "__main__":
    typer.run(main)
