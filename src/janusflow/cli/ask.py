"""The commands that answer: `janusflow ask` and `janusflow chat`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from janusflow.arguments import quoted, whole_text
from janusflow.cli import options

PicturesAndQuestion = Annotated[
    list[str], typer.Argument(metavar="[PICTURE]... QUESTION", help="Any number of pictures, then a question.")
]
Temperature = Annotated[
    Optional[float], typer.Option(help="Temperature of sampling; 0, the default, takes the most likely token.")
]
PromptLookup = Annotated[
    int, typer.Option(help="Tokens guessed ahead from the conversation; the answer stays the same.")
]


@options.one_sentence
def ask(
    pictures_and_question: PicturesAndQuestion,
    model: options.Model = "tiny",
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    max_new_tokens: options.MaxNewTokens = 512,
    temperature: Temperature = None,
    top_p: Annotated[float, typer.Option(help="Top-p of sampling; needs --temperature.")] = 1.0,
    seed: Annotated[Optional[int], typer.Option(help="Seed of sampling; needs --temperature.")] = None,
    prompt_lookup: PromptLookup = 0,
    adapter: options.Adapter = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    compile: options.Compile = "off",
    sft_format: options.SftFormat = None,
    debug: options.Debug = False,
) -> None:
    """Ask a question about pictures.

    [bold]Examples[/bold]

      janusflow ask scene.png "what color is the circle?"

      janusflow ask first.png second.png "which one shows a star?" --stream
    """
    *pictures, question = pictures_and_question
    if options.is_file(question):
        raise ValueError(f"{quoted(question)} is a file; the question comes last: janusflow ask PICTURE QUESTION")
    question = whole_text("the question", question)
    if not pictures and Path(question).suffix.lower() in options.PICTURES and " " not in question:
        raise ValueError(
            f"{quoted(question)} is not a file, and no question follows it: janusflow ask PICTURE QUESTION"
        )
    if top_p != 1 and not temperature:
        raise ValueError(f"--top-p {top_p} has no effect without --temperature; give both or neither")
    for picture in pictures:
        if not picture.startswith(("data:", "http://", "https://")) and not Path(picture).expanduser().exists():
            raise ValueError(f"picture {quoted(picture)} does not exist")
    opening = {"adapter": adapter, "quantize": quantize, "compile": compile, "sft_format": sft_format}
    answerer = options.open_model(model, dtype=dtype, device=device, **opening)
    decoding: dict[str, Any] = {"max_new_tokens": max_new_tokens, "prompt_lookup": prompt_lookup}
    if temperature:
        decoding.update(do_sample=True, temperature=temperature, top_p=top_p, seed=seed)
    elif seed is not None:
        from janusflow.engine.generation import check_seed

        warnings.warn(f"--seed {check_seed(seed)} is ignored without --temperature", stacklevel=2)
    if stream:
        for piece in answerer.stream(question, pictures, **decoding):
            print(piece, end="", flush=True)
        print()
    else:
        print(answerer.ask(question, pictures, **decoding).strip())


@options.one_sentence
def chat(
    model: options.Model = "tiny",
    vae: options.Vae = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures that /generate makes.")] = Path("pictures"),
    max_new_tokens: options.MaxNewTokens = 512,
    adapter: options.Adapter = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    compile: options.Compile = "off",
    sft_format: options.SftFormat = None,
    debug: options.Debug = False,
) -> None:
    """Talk with a model about pictures, and generate some, over several turns.

    [bold]In the chat[/bold]: /image FILE shows the model a picture, /generate PROMPT generates one and shows it to the
    model, /reset starts over, /quit ends.

    [bold]Example[/bold]

      janusflow chat --model deepseek-ai/JanusFlow-1.3B
    """
    from janusflow.cli.talk import Talk

    opened = options.open_model(
        model,
        vae=vae,
        dtype=dtype,
        device=device,
        adapter=adapter,
        quantize=quantize,
        compile=compile,
        sft_format=sft_format,
    )
    talk = Talk(opened, out, max_new_tokens)
    print("/image FILE, /generate PROMPT, /reset, /quit", file=sys.stderr)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        if line in ("/quit", "/exit"):
            break
        try:
            for piece in talk.say(line):
                print(piece, end="", flush=True)
            print()
        except (ValueError, OSError) as error:
            if debug:
                raise
            print(f"error: {error}", file=sys.stderr)
