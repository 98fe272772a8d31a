"""The command that measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from janusflow.cli.options import Debug, Vae, one_sentence


@one_sentence
def evaluate(
    benchmark: Annotated[Optional[str], typer.Argument(help="geneval, dpg, pope, tinyworld, ...; see --list.")] = None,
    model: Annotated[
        Optional[str], typer.Option("--model", "-m", help="'tiny' (the default), a folder, or a hub id.")
    ] = None,
    data: Annotated[Optional[Path], typer.Option(help="Folder of the benchmark's official files.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run; the same one continues it.")] = None,
    mode: Annotated[Optional[str], typer.Option(help="full (the default), generate or score.")] = None,
    limit: Annotated[Optional[int], typer.Option(help="Only this many items, from all parts alike.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Items drawn or answered together; 16 by default.")] = None,
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="A setting of the benchmark; repeatable.")
    ] = None,
    options: Annotated[
        Optional[list[str]],
        typer.Option("--option", metavar="KEY=VALUE", help="An argument of generate or ask; repeatable."),
    ] = None,
    sweep: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUES", help="One run per value of an option: guidance=1..10 or solver=euler,heun."),
    ] = None,
    config: Annotated[Optional[Path], typer.Option(help="A recipe of ours or TorchUMM's; see recipes/eval.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Local processes.")] = 1,
    ray: Annotated[int, typer.Option(min=0, help="Ray workers, in place of processes.")] = 0,
    vae: Vae = None,
    device: Annotated[Optional[str], typer.Option(help="auto (the default), cpu, cuda, mps, ...")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="auto (the default), float32 or bfloat16.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name all benchmarks and their data.")] = False,
    debug: Debug = False,
) -> None:
    """Measure a model: draw or ask, judge, and report.

    A run that was stopped goes on where it was, with the same command. Under torchrun its processes share the work.

    [bold]Examples[/bold]

      janusflow eval tinyworld --out runs/tinyworld --set prompts=20

      janusflow eval geneval --model deepseek-ai/JanusFlow-1.3B --data geneval/prompts --out runs/geneval

      janusflow eval pope --model models/janusflow --data pope --out runs/pope --mode generate --workers 2

      janusflow eval tinyworld --out runs/sweep --sweep guidance_scale=1,2,3,4 --set prompts=20
    """
    from janusflow.evaluation.command import listing, run

    if listed:
        print(listing())
        return
    print(
        run(
            benchmark,
            config=config,
            changes={
                "model": model,
                "data": data,
                "out": out,
                "mode": mode,
                "limit": limit,
                "batch_size": batch_size,
                "vae": vae,
                "device": device,
                "dtype": dtype,
            },
            settings=settings or [],
            options=options or [],
            sweep=sweep or [],
            workers=workers,
            ray=ray,
        )
    )
