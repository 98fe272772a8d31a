"""The command `janusflow demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="'tiny' (in the package), a folder, or a hub id.")
    ] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Generate one picture of each kind, ask questions about a generated and a rendered picture, and check everything.

    [bold]Example[/bold]

      janusflow demo --out demo
    """
    from janusflow.pipelines.janusflow import JanusFlow
    from janusflow.pipelines.sheet import output_folder
    from janusflow.progress import without_others
    from janusflow.tinyworld.demo import show

    with output_folder(out), without_others():
        show(JanusFlow.from_pretrained(model, dtype=dtype, device=device), out, seed=seed)
