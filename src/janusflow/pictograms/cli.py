"""The command `janusflow pictograms`, also `python -m janusflow.pictograms`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from janusflow.cli.options import Debug, SuggestingCommand, one_sentence

app = typer.Typer(
    name="pictograms",
    help="Emoji and icons by other artists: data, and pictures of a model trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def root() -> None:
    """Emoji and icons by other artists: data, and pictures of a model trained on them."""


@app.command(cls=SuggestingCommand)
@one_sentence
def build(
    out: Annotated[Path, typer.Option(help="Folder for the data set; continued if it exists.")],
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels: 64 or 128.")] = 64,
    style: Annotated[
        Optional[list[str]],
        typer.Option(help="noto, noto-v1, flat, high-contrast, 3d, phosphor or openclipart; repeat for several."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(help="Number of pictures, chosen at random; all by default.")] = None,
    variants: Annotated[int, typer.Option(help="Rows per picture, each with another caption.")] = 3,
    tints: Annotated[int, typer.Option(help="Combinations of weight and color per Phosphor icon.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of captions, questions, backgrounds and order.")] = 0,
    cache: Annotated[Optional[Path], typer.Option(help="Folder for downloaded packages.")] = None,
    workers: Annotated[int, typer.Option(help="Number of processes that render.")] = 2,
    debug: Debug = False,
) -> None:
    """Download icon packages, render them, and write shards with captions and conversations, a report and a sheet.

    Packages come from the npm registry, or from the one in npm_config_registry. They are pinned and checked.

    [bold]Examples[/bold]

      janusflow pictograms build --out data/pictograms

      janusflow pictograms build --out data/large --size 128 --style flat --style 3d
    """
    from janusflow.pictograms.build import DEFAULT_STYLES, BuildConfig
    from janusflow.pictograms.build import build as run
    from janusflow.pictograms.download import Downloads, default_cache

    styles = tuple(dict.fromkeys(style or DEFAULT_STYLES))
    config = BuildConfig(
        size=size, styles=styles, limit=limit, variants=variants, tints=tints, seed=seed, workers=workers
    )
    report = run(out, config, Downloads(cache or default_cache()))
    pictures, rows = report["pictures"], report["rows"]
    print(
        f"{pictures['train']:,} pictures in {rows['train']:,} rows for training, {pictures['held_out']:,} held out; "
        f"see {out / 'report.md'} and {out / 'sheet.png'}"
    )


@app.command(cls=SuggestingCommand)
@one_sentence
def gallery(
    model: Annotated[str, typer.Argument(help="'tiny' (in the package), a folder, or a hub id.")] = "tiny",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("gallery.png"),
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 4.0,
    steps: Annotated[Optional[int], typer.Option(help="Number of solver steps; not for a Janus model.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
    debug: Debug = False,
) -> None:
    """Generate twelve subjects in five styles, with frames around combinations that training never sees.

    [bold]Examples[/bold]

      janusflow pictograms gallery

      janusflow pictograms gallery runs/pictograms/model --out other.png --seed 1
    """
    from janusflow.pictograms.gallery import write_gallery
    from janusflow.pipelines.janusflow import JanusFlow

    write_gallery(JanusFlow.from_pretrained(model, device=device), out, seed=seed, guidance_scale=guidance, steps=steps)
    print(out)
