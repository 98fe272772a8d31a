"""Commands that run a model: generate, ask, chat, info, demo. Heavy imports happen inside them."""

from __future__ import annotations

import signal
import sys
import warnings
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from janusflow.arguments import quoted, whole_text
from janusflow.cli.options import (
    MODEL_HELP,
    Adapter,
    Debug,
    Device,
    Dtype,
    MaxNewTokens,
    Model,
    Quantize,
    SftFormat,
    Vae,
    one_sentence,
)

if TYPE_CHECKING:
    from janusflow.pipelines.base import Pipeline

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@one_sentence
def generate(
    prompts: Annotated[
        Optional[list[str]], typer.Argument(help="What to generate; several prompts are generated together.")
    ] = None,
    prompt_file: Annotated[
        Optional[Path], typer.Option("--prompts", help="File with a prompt in each line, or .jsonl; can be resumed.")
    ] = None,
    source: Annotated[Optional[Path], typer.Option("--from", help="A generated PNG, to generate it again.")] = None,
    model: Annotated[
        Optional[str], typer.Option("--model", "-m", help=MODEL_HELP, show_default="tiny, or that of --from")
    ] = None,
    vae: Vae = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Pictures of each prompt.")] = 1,
    steps: Annotated[Optional[int], typer.Option(help="Steps from noise to picture; by default 30.")] = None,
    guidance: Annotated[
        Optional[float], typer.Option(help="Weight of the prompt; 1 is none. By default 2, and 5 for Janus.")
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Seed of the first picture of each prompt; by default random.")
    ] = None,
    solver: Annotated[Optional[str], typer.Option(help="euler (by default), heun, midpoint or ab2.")] = None,
    shift: Annotated[Optional[float], typer.Option(help="Above 1: more steps near the noise.")] = None,
    height: Annotated[Optional[int], typer.Option(help="In pixels, a multiple of 16.")] = None,
    width: Annotated[Optional[int], typer.Option(help="In pixels, a multiple of 16.")] = None,
    image: Annotated[Optional[Path], typer.Option(help="Picture to start from.")] = None,
    mask: Annotated[
        Optional[Path], typer.Option(help="With --image: bright and opaque where to generate anew; any size.")
    ] = None,
    paste_original: Annotated[
        bool, typer.Option(help="With --mask: keep the other pixels exactly as they are in --image.")
    ] = True,
    strength: Annotated[Optional[float], typer.Option(help="With --image: how far from it, in (0, 1].")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="Of a Janus model's codes; 1 by default.")] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Of a Janus model's codes; all by default.")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Of a Janus model's codes; 1 by default.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures generated at once.")] = 16,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    sft_format: SftFormat = None,
    debug: Debug = False,
) -> None:
    """Generate pictures from words.

    Writes PNG files that carry prompt, seed and settings, each as soon as it is made; and, without --prompts, a contact
    sheet when there are several.

    With --prompts FILE every line is a prompt or, in a .jsonl file, an object such as {"prompt": "a star", "seed": 7,
    "steps": 30, "guidance": 2, "size": 512, "n": 4}. The same command continues a run that was stopped: pictures
    that are there with the same settings are not made again, and manifest.jsonl lists every requested picture.

    With --from PICTURE the model, prompt, seed and settings are those of that picture; options that are given replace
    them.

    [bold]Examples[/bold]

      janusflow generate "a red circle above a blue square"

      janusflow generate "three stars" "a green cross" --num-images 4 --steps 30 --guidance 2 --seed 0 --out pictures

      janusflow generate "a yellow star" --image scene.png --mask mask.png

      janusflow generate --prompts prompts.txt --num-images 2 --out pictures

      janusflow generate --from pictures/001-three-stars-0.png --steps 50
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that no file is half-written
    if num_images < 1:
        raise ValueError(f"--num-images is {num_images}; expected a whole number from 1 upwards")
    if (prompt_file is not None) + (source is not None or bool(prompts)) != 1:
        raise ValueError("give prompts, or --prompts FILE, or --from PICTURE (with another prompt, if you like)")
    prompts = [whole_text("the prompt", prompt) for prompt in prompts or []]
    from janusflow.cli.prompt_lines import lines_of  # files are checked before torch is imported, which takes seconds
    from janusflow.pipelines.provenance import provenance_of, settings_of

    texts = None if prompt_file is None else lines_of(prompt_file)
    made = None if source is None else provenance_of(source)
    before = None if source is None else settings_of(source)
    for given in (image, mask):
        if given is not None and not given.expanduser().exists():
            raise ValueError(f"picture {quoted(str(given))} does not exist")

    from janusflow.cli.pictures import check_again, from_words, merged, opening_of
    from janusflow.cli.prompt_file import from_file
    from janusflow.engine.generation import choose_seeds
    from janusflow.pipelines.sheet import output_folder

    asked: dict[str, Any] = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "solver": solver,
        "shift": shift,
        "height": height,
        "width": width,
        "image": image,
        "mask": mask,
        "paste_original": None if paste_original else False,
        "strength": strength,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    opening: dict[str, Any] = {
        "model": model,
        "vae": vae,
        "dtype": None if dtype == "auto" else dtype,
        "adapter": adapter,
        "quantize": quantize,
        "sft_format": sft_format,
    }
    if made is not None and before is not None:
        asked, opening = merged(before, asked), merged(opening_of(made), opening)
        prompts = prompts or [made.settings["prompts"]]
        del asked["prompts"]
    first = asked.pop("seed")
    seeds = choose_seeds(first, len(prompts or [""]), num_images)
    opening = {name: value for name, value in opening.items() if value is not None}
    with output_folder(out):
        opened = _open(**{"model": "tiny", "vae": None, "dtype": "auto", "device": device} | opening)
        settings = _settings(opened, asked)
        if made is not None and source is not None:
            check_again(opened, made, asked, source)
        if prompt_file is not None and texts is not None:
            from_file(opened, prompt_file, texts, settings, out, pictures=num_images, seed=first, batch_size=batch_size)
        else:
            named = [prompt for prompt in prompts for _ in range(num_images)]
            from_words(opened, named, seeds, settings, out, batch_size)


@one_sentence
def ask(
    pictures_and_question: Annotated[
        list[str], typer.Argument(metavar="[PICTURE]... QUESTION", help="Any number of pictures, then a question.")
    ],
    model: Model = "tiny",
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is written.")] = False,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Annotated[
        Optional[float], typer.Option(help="Sample with this temperature; 0, the default, takes the most likely token.")
    ] = None,
    top_p: Annotated[float, typer.Option(help="Top-p of sampling; needs --temperature.")] = 1.0,
    seed: Annotated[Optional[int], typer.Option(help="Seed of sampling; needs --temperature.")] = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    sft_format: SftFormat = None,
    debug: Debug = False,
) -> None:
    """Ask a question about pictures.

    [bold]Examples[/bold]

      janusflow ask scene.png "what color is the circle?"

      janusflow ask first.png second.png "which one shows a star?" --stream
    """
    *pictures, question = pictures_and_question
    if _is_file(question):
        raise ValueError(f"{quoted(question)} is a file; the question comes last: janusflow ask PICTURE QUESTION")
    question = whole_text("the question", question)
    if not pictures and Path(question).suffix.lower() in PICTURES and " " not in question:
        raise ValueError(
            f"{quoted(question)} is not a file, and no question follows it: janusflow ask PICTURE QUESTION"
        )
    if top_p != 1 and not temperature:
        raise ValueError(f"--top-p {top_p} has no effect without --temperature; give both or neither")
    for picture in pictures:
        if not picture.startswith("data:") and not Path(picture).expanduser().exists():
            raise ValueError(f"picture {quoted(picture)} does not exist")
    answerer = _open(model, None, dtype, device, adapter, quantize, sft_format)
    decoding: dict[str, Any] = {"max_new_tokens": max_new_tokens}
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


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than any file's name
        return False


@one_sentence
def chat(
    model: Model = "tiny",
    vae: Vae = None,
    out: Annotated[Path, typer.Option(help="Folder for what /draw generates.")] = Path("pictures"),
    max_new_tokens: MaxNewTokens = 512,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    sft_format: SftFormat = None,
    debug: Debug = False,
) -> None:
    """Talk about pictures and generate some, in many turns.

    [bold]In the chat[/bold]: /image FILE shows the model a picture, /draw PROMPT generates one and shows it too, /reset
    starts over, /quit ends.

    [bold]Example[/bold]

      janusflow chat --model deepseek-ai/JanusFlow-1.3B
    """
    from janusflow.cli.talk import Talk

    talk = Talk(_open(model, vae, dtype, device, adapter, quantize, sft_format), out, max_new_tokens)
    print("/image FILE, /draw PROMPT, /reset, /quit", file=sys.stderr)
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


@one_sentence
def info(
    place: Annotated[str, typer.Argument(metavar="[MODEL]", help=f"{MODEL_HELP[:-1]}; or a generated PNG.")] = "",
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Show what a checkpoint is and how it would be opened, without loading its weights; or how a picture was made.

    [bold]Examples[/bold]

      janusflow info

      janusflow info deepseek-ai/JanusFlow-1.3B --dtype bfloat16

      janusflow info pictures/001-three-stars-0.png
    """
    if Path(place).suffix.lower() in PICTURES and not Path(place).expanduser().exists():
        raise ValueError(f"picture {quoted(place)} does not exist")
    if _is_file(place):
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
    table.add_row("layout", f"{found.layout}, {found.bytes / 1e6:,.1f} MB in {stored}")
    table.add_row("pictures", f"{found.image_size} px, {found.drawn}")
    table.add_row("tokens", f"{found.image_tokens[0]} to see, {found.image_tokens[1]} to draw; context {found.context}")
    if found.separate_vae:
        table.add_row("VAE", str(found.vae) if found.vae else f"not here; by default {DEFAULT_VAE}")
    for part, (count, meaning) in found.parts.items():
        table.add_row(part.removeprefix("model."), f"{count:>15,}  {meaning}")
    table.add_row("parameters", f"{total:>15,}")
    opened = f"{str(chosen).removeprefix('torch.')} on {resolve_device(device)}"
    table.add_row("opened", f"as {opened}: {total * chosen.itemsize / 1e6:,.1f} MB of weights")
    Console(soft_wrap=True).print(table)


@one_sentence
def convert(
    source: Annotated[str, typer.Argument(help="'tiny', a folder, or a hub id, in any layout.")],
    folder: Annotated[Path, typer.Argument(help="The new folder; it must not exist.")],
    to: Annotated[str, typer.Option(help="janusflow, official, or (Janus) transformers.")] = "janusflow",
    dtype: Annotated[str, typer.Option(help="auto (as stored), float32 or bfloat16.")] = "auto",
    sft_format: SftFormat = None,
    vae: Annotated[
        Optional[str], typer.Option(help="Folder or hub id of a VAE to include; by default the source's, if any.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a checkpoint in another layout, tensor by tensor: all of it, or nothing.

    [bold]Examples[/bold]

      janusflow convert paddle_folder JanusFlow-1.3B --to official --vae stabilityai/sdxl-vae

      janusflow convert deepseek-ai/JanusFlow-1.3B my_janusflow --dtype bfloat16
    """
    from janusflow.checkpoint.convert import convert as run
    from janusflow.checkpoint.convert import where_vae_is

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that nothing is left behind
    print(run(source, folder, to=to, dtype=dtype, sft_format=sft_format, vae=vae))
    if note := where_vae_is(folder.expanduser()):
        print(f"note: {note}", file=sys.stderr)


def _open(
    model: str,
    vae: str | None,
    dtype: str,
    device: str,
    adapter: Path | None = None,
    quantize: str | None = None,
    sft_format: str | None = None,
) -> Pipeline:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from janusflow.pipelines.base import Pipeline

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    return Pipeline.from_pretrained(
        model, vae=vae, dtype=dtype, device=device, adapter=adapter, sft_format=sft_format, quantize=quantize
    )


def _settings(model: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, and the model's own defaults for the rest.

    Raises:
        ValueError: if the model does not take what was asked for: a Janus knows no solver, a JanusFlow no temperature.
    """
    known = signature(model.generate).parameters
    refused = [name for name, value in asked.items() if value is not None and name not in known]
    if refused:
        options = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
        named = ", ".join("--" + options.get(name, name).replace("_", "-") for name in refused)
        raise ValueError(f"{named}: not for a {type(model).__name__} model")
    return {name: known[name].default if value is None else value for name, value in asked.items() if name in known}
