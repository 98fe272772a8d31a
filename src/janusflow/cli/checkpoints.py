"""The commands about weights: `janusflow info` and `janusflow convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from janusflow.arguments import quoted
from janusflow.cli import options


@options.one_sentence
def info(
    place: Annotated[
        str, typer.Argument(metavar="[MODEL]", help=f"{options.MODEL_HELP[:-1]}; or a generated PNG.")
    ] = "",
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """Describe a checkpoint from the headers of its weight files, or show how a picture was generated.

    [bold]Examples[/bold]

      janusflow info

      janusflow info deepseek-ai/JanusFlow-1.3B --dtype bfloat16

      janusflow info pictures/001-three-stars-0.png
    """
    if Path(place).suffix.lower() in options.PICTURES and not Path(place).expanduser().exists():
        raise ValueError(f"picture {quoted(place)} does not exist")
    if options.is_file(place):
        from janusflow.pipelines.provenance import describe_picture

        print("\n".join(f"{name:<20} {value}" for name, value in describe_picture(place)))
        return

    from rich.console import Console
    from rich.table import Table

    from janusflow.checkpoint.describe import describe
    from janusflow.device import resolve_device, resolve_dtype
    from janusflow.vae import DEFAULT_VAE

    found = describe(place or model)
    chosen, total = resolve_dtype(dtype, found.dtype), sum(count for count, _ in found.parts.values())
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    stored = ", ".join(f"{count} tensors {dtype}" for dtype, count in found.dtypes.items())
    table.add_row("from", str(found.folder))
    table.add_row("family", f"{found.family}, chat template {found.sft_format}")
    if found.descendant is not None:
        table.add_row("descendant", f"{found.descendant.name}, which {found.descendant.does}")
    table.add_row("layout", f"{found.layout}, {found.bytes / 1e6:,.1f} MB in {stored}")
    table.add_row("pictures", f"{found.image_size} px, {found.drawn}")
    seen, generated = found.image_tokens
    table.add_row("tokens", f"{seen} of a picture to read, {generated} to generate; context {found.context}")
    if found.separate_vae:
        table.add_row("VAE", str(found.vae) if found.vae else f"not in the folder; by default {DEFAULT_VAE}")
    for part, (count, meaning) in found.parts.items():
        table.add_row(part.removeprefix("model."), f"{count:>15,}  {meaning}")
    table.add_row("parameters", f"{total:>15,}")
    opened = f"{str(chosen).removeprefix('torch.')} on {resolve_device(device)}"
    table.add_row("opened", f"as {opened}: {total * chosen.itemsize / 1e6:,.1f} MB of weights")
    Console(soft_wrap=True).print(table)


@options.one_sentence
def convert(
    source: Annotated[str, typer.Argument(help="'tiny', a folder, or a hub id, in any layout.")],
    folder: Annotated[Path, typer.Argument(help="The new folder; it must not exist.")],
    to: Annotated[
        str, typer.Option(help="janusflow, official, (Janus) transformers, or (JanusFlow) onnx.")
    ] = "janusflow",
    dtype: Annotated[str, typer.Option(help="auto (as stored), float32 or bfloat16.")] = "auto",
    sft_format: options.SftFormat = None,
    vae: Annotated[
        Optional[str], typer.Option(help="Folder or hub id of a VAE to include; by default the source's, if any.")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Write a checkpoint in another layout, tensor by tensor. If that fails, nothing is left behind.

    [bold]Examples[/bold]

      janusflow convert paddle_folder JanusFlow-1.3B --to official --vae stabilityai/sdxl-vae

      janusflow convert deepseek-ai/JanusFlow-1.3B my_janusflow --dtype bfloat16

      janusflow convert tiny graphs --to onnx
    """
    from janusflow.checkpoint.convert import convert as run
    from janusflow.checkpoint.convert import where_vae_is

    options.end_in_order()
    if to == "onnx":
        _convert_to_onnx(source, folder, dtype=dtype, sft_format=sft_format, vae=vae)
        return
    print(run(source, folder, to=to, dtype=dtype, sft_format=sft_format, vae=vae))
    if note := where_vae_is(folder.expanduser()):
        print(f"note: {note}", file=sys.stderr)


def _convert_to_onnx(source: str, folder: Path, *, dtype: str, sft_format: str | None, vae: str | None) -> None:
    """Write ONNX graphs, and print how far each is from PyTorch."""
    from janusflow.interop.onnx_export import export_onnx

    if dtype not in ("auto", "float32"):
        raise ValueError(f"dtype is {quoted(dtype)}, but ONNX graphs are written in float32; leave it out")
    exported = export_onnx(source, folder, sft_format=sft_format, vae=vae)
    print(exported.folder)
    for name, error in exported.errors.items():
        print(f"{name:<20} relative error {error:.1e}")
    if "vae_decoder" not in exported.errors:
        print(
            "note: the source contains no VAE, so there is no vae_decoder; --vae FOLDER_OR_ID adds one", file=sys.stderr
        )
