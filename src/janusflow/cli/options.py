"""What several commands share: options, opening a model, and how errors are reported."""

from __future__ import annotations

import functools
import inspect
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from janusflow.arguments import nearest, quoted

if TYPE_CHECKING:
    from janusflow.pipelines.base import Pipeline

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MODEL_HELP = "'tiny' (in the package), a folder, or a hub id."
Model = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
Vae = Annotated[Optional[str], typer.Option(help="Folder or hub id of the VAE, if not the model's own.")]
Adapter = Annotated[Optional[Path], typer.Option(help="Folder of LoRA adapters to load.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")]
Quantize = Annotated[Optional[str], typer.Option(help="int8 or int4: quantize the large matrices.")]
Compile = Annotated[str, typer.Option(help="off, auto (if it pays) or on: compile the small operations.")]
SftFormat = Annotated[
    Optional[str], typer.Option(help="Chat template to use instead of the checkpoint's: deepseek_old, deepseek.")
]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]


NoSuchOption: Any = vars(sys.modules[typer.BadParameter.__module__])["NoSuchOption"]
"""click's error class; typer contains its own copy of click since 0.26."""


class SuggestingCommand(TyperCommand):
    """A command whose error for an unknown option suggests one: `--steps` for `--num-inference-steps`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [name for option in self.params for name in option.opts if name.startswith("--")]
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            error.possibilities = nearest(error.option_name, known) or error.possibilities
            raise


def one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """Print a user's error as one sentence on stderr and exit with code 2; with `--debug`, raise it.

    The lines of each paragraph of the command's docstring are joined, because typer's help keeps line breaks and a
    narrow terminal would wrap the text twice.
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


def open_model(model: str, **options: Any) -> Pipeline:
    """Open a model without the messages of transformers and diffusers; options as in `Pipeline.from_pretrained`."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from janusflow.pipelines.base import Pipeline

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    opened: Pipeline = Pipeline.from_pretrained(model, **options)
    return opened


def end_in_order() -> None:
    """Let SIGTERM end the command as an exception does, so that no file is left half-written."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def is_file(text: str) -> bool:
    """Return whether a text names a file; texts longer than any file's name do not."""
    try:
        return Path(text).is_file()
    except OSError:
        return False
