"""The command line, one file per group of commands. Commands import torch only when they run, so `--help` is fast."""

from __future__ import annotations

from typing import Annotated

import typer

from janusflow import __version__
from janusflow.cli import ask, checkpoints, evaluation, generate, training
from janusflow.cli.ablation import ablate
from janusflow.cli.options import SuggestingCommand
from janusflow.cli.plugins import PluginGroup
from janusflow.cli.serve import serve
from janusflow.cli.streams import open_streams

EXAMPLES = """[bold]Examples[/bold]

janusflow generate "a red circle above a blue square" --out pictures

janusflow ask picture.png "what color is the circle?"

janusflow COMMAND --help"""
app = typer.Typer(
    name="janusflow",
    cls=PluginGroup,
    help="JanusFlow: one model that understands and generates images.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


COMMANDS = (generate.generate, ask.ask, ask.chat, serve, checkpoints.info, checkpoints.convert, training.train)
for command in (*COMMANDS, training.pretrain, ablate):
    app.command(cls=SuggestingCommand)(command)
app.add_typer(evaluation.app, name="eval", help="Measure a model, and compare runs.")
app.add_typer(training.data, name="data", help="Prepare data for training.")


def main() -> None:
    """Entry point of the `janusflow` command."""
    open_streams()
    app()
