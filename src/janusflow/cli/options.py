"""Options that several commands share, and how a user's error is reported."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from janusflow.arguments import nearest, quoted

MODEL_HELP = "'tiny' (in the package), a folder, or a hub id."
Model = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
Vae = Annotated[Optional[str], typer.Option(help="Folder or hub id of the VAE, if not the model's own.")]
Adapter = Annotated[Optional[Path], typer.Option(help="Folder of low-rank adapters to put into the model.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")]
Quantize = Annotated[
    Optional[str], typer.Option(help="int8 or int4: quantize the large matrices to 8 or 4 bits (torchao).")
]
SftFormat = Annotated[
    Optional[str], typer.Option(help="Another chat template than the checkpoint's: deepseek_old, deepseek.")
]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]


NoSuchOption: Any = vars(sys.modules[typer.BadParameter.__module__])["NoSuchOption"]
"""click's error; typer brings a click of its own since 0.26, whose errors are other classes."""


class SuggestingCommand(TyperCommand):
    """A command whose error for an unknown option names the one that was probably meant, by other software's name too.

    `--num-inference-steps` is `--steps`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [name for option in self.params for name in option.opts if name.startswith("--")]
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            error.possibilities = nearest(error.option_name, known) or error.possibilities
            raise


def one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a user's error into one sentence on stderr and exit code 2; `--debug` lets it through.

    The lines of each paragraph of the command's docstring are joined: typer's help keeps line breaks, and a terminal
    that is narrower would wrap the text twice.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            if kwargs.get("debug"):
                raise
            said = str(error)
            if isinstance(error, OSError) and error.filename is not None:
                said = f"{quoted(str(error.filename))}: {error.strerror}"
            print(f"error: {said}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stopped:
            if stopped.args:
                print(stopped, file=sys.stderr)
            raise typer.Exit(130) from None

    run.__doc__ = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.getdoc(command) or "")
    return run
