"""The command `janusflow generate`. The next stops are `pictures.py` and, with --prompts, `prompt_file.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from janusflow.arguments import quoted, whole_number, whole_text
from janusflow.cli import options

# The options of this command only; those that other commands share are in `options.py`.
Prompts = Annotated[
    Optional[list[str]], typer.Argument(help="What to generate; several prompts are generated together.")
]
PromptFile = Annotated[
    Optional[Path], typer.Option("--prompts", help="File with a prompt in each line, or .jsonl; can be resumed.")
]
Source = Annotated[Optional[Path], typer.Option("--from", help="A generated PNG, to generate it again.")]
Model = Annotated[
    Optional[str], typer.Option("--model", "-m", help=options.MODEL_HELP, show_default="tiny, or that of --from")
]
Out = Annotated[Path, typer.Option(help="Folder for the pictures.")]
NumImages = Annotated[int, typer.Option("--num-images", "-n", help="Pictures per prompt.")]
Preset = Annotated[
    Optional[str], typer.Option(help="exact (by default), balanced or fast: steps, solver, shift, decoder ...")
]
Steps = Annotated[Optional[int], typer.Option(help="Steps from noise to picture; by default 30.")]
Guidance = Annotated[Optional[float], typer.Option(help="Guidance scale; 1 is off. By default 2, and 5 for Janus.")]
Seed = Annotated[Optional[int], typer.Option(help="Seed of the first picture of each prompt; by default random.")]
Solver = Annotated[Optional[str], typer.Option(help="euler (by default), heun, midpoint, ab2, unipc.")]
Shift = Annotated[Optional[float], typer.Option(help="Above 1: more steps near the noise.")]
GuidanceInterval = Annotated[
    Optional[tuple[float, float]],
    typer.Option(help="Range of t, 0 (noise) to 1 (picture), with guidance.", metavar="FROM TO"),
]
Decoder = Annotated[Optional[str], typer.Option(help="vae (by default), or small if the model has one.")]
Side = Annotated[
    Optional[int],
    typer.Option(help="In pixels, a multiple of the side of an image token (16 in the released weights)."),
]
Image = Annotated[Optional[Path], typer.Option(help="Picture to start from.")]
Mask = Annotated[
    Optional[Path], typer.Option(help="With --image: generate where the mask is bright and opaque; any size.")
]
PasteOriginal = Annotated[
    Optional[bool],
    typer.Option(
        "--paste-original/--no-paste-original",
        help="With --mask: keep the other pixels exactly as they are in --image, the default.",
    ),
]
Strength = Annotated[Optional[float], typer.Option(help="With --image: how much may change, above 0 and at most 1.")]
Temperature = Annotated[Optional[float], typer.Option(help="Temperature for Janus; 1 by default.")]
TopK = Annotated[Optional[int], typer.Option(help="Top-k for Janus; all codes by default.")]
TopP = Annotated[Optional[float], typer.Option(help="Top-p for Janus; 1 by default.")]
ImageGuidance = Annotated[
    Optional[float], typer.Option(help="With --image for Janus: how freely the result departs from it; 5 by default.")
]
Plan = Annotated[
    Optional[bool],
    typer.Option("--plan/--no-plan", help="Describe the picture first, and generate from prompt and description."),
]
BestOf = Annotated[
    Optional[int], typer.Option(help="Number of candidates; the one that the model says matches best is kept.")
]
Redraw = Annotated[
    Optional[int], typer.Option(help="Maximum number of retries while the model says that the picture does not match.")
]
BatchSize = Annotated[int, typer.Option(help="Pictures generated at once.")]


@options.one_sentence
def generate(
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    source: Source = None,
    model: Model = None,
    vae: options.Vae = None,
    out: Out = Path("pictures"),
    num_images: NumImages = 1,
    preset: Preset = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    solver: Solver = None,
    shift: Shift = None,
    guidance_interval: GuidanceInterval = None,
    decoder: Decoder = None,
    height: Side = None,
    width: Side = None,
    image: Image = None,
    mask: Mask = None,
    paste_original: PasteOriginal = None,
    strength: Strength = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    image_guidance: ImageGuidance = None,
    plan: Plan = None,
    best_of: BestOf = None,
    redraw: Redraw = None,
    batch_size: BatchSize = 16,
    adapter: options.Adapter = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    compile: options.Compile = "off",
    sft_format: options.SftFormat = None,
    debug: options.Debug = False,
) -> None:
    """Generate pictures from prompts.

    The PNG files contain prompt, seed and settings. Each batch is written once it is generated. Several pictures also
    get a contact sheet, except with --prompts.

    With --prompts FILE every line is a prompt or, in a .jsonl file, an object such as {"prompt": "a star", "seed": 7,
    "steps": 30, "guidance": 2, "size": 512, "n": 4}. To resume a run that was stopped, repeat the command: pictures
    that exist with the same settings are kept, and manifest.jsonl lists every requested picture.

    With --from PICTURE the model, prompt, seed and settings are those of that picture; the options that you give
    replace them.

    [bold]Examples[/bold]

      janusflow generate "a red circle above a blue square"

      janusflow generate "three stars" "a green cross" --num-images 4 --steps 30 --guidance 2 --seed 0 --out pictures

      janusflow generate "a yellow star" --image scene.png --mask mask.png

      janusflow generate "a red circle above a blue square" --best-of 4

      janusflow generate --prompts prompts.txt --num-images 2 --out pictures

      janusflow generate --from pictures/001-three-stars-0.png --steps 50
    """
    options.end_in_order()
    opening: dict[str, Any] = {"model": model, "vae": vae, "adapter": adapter, "quantize": quantize}
    opening |= {"dtype": None if dtype == "auto" else dtype, "sft_format": sft_format}
    asked: dict[str, Any] = {"preset": preset, "num_inference_steps": steps, "guidance_scale": guidance, "seed": seed}
    asked |= {"solver": solver, "shift": shift, "guidance_interval": guidance_interval, "decoder": decoder}
    asked |= {"height": height, "width": width, "image": image, "mask": mask, "strength": strength}
    asked |= {"paste_original": paste_original}
    asked |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    asked |= {"image_guidance_scale": image_guidance, "plan": plan, "best_of": best_of, "redraw": redraw}
    here = {"device": device, "compile": compile}
    _generate(prompts or [], prompt_file, source, asked, opening, here, out, num_images, batch_size)


def _generate(
    prompts: list[str],
    prompt_file: Path | None,
    source: Path | None,
    asked: dict[str, Any],
    opening: dict[str, Any],
    here: dict[str, str],
    out: Path,
    num_images: int,
    batch_size: int,
) -> None:
    """Check the request, open the model, and generate prompts, the lines of a file, or a picture again.

    `here` is how this machine runs the model, which is never taken from a picture. Files are checked before torch is
    imported, which takes seconds.
    """
    whole_number("--num-images", num_images)
    whole_number("--batch-size", batch_size)
    if (prompt_file is not None) + (source is not None or bool(prompts)) != 1:
        raise ValueError("give prompts, or --prompts FILE, or --from PICTURE (which may have another prompt)")
    prompts = [whole_text("the prompt", prompt) for prompt in prompts]
    from janusflow.cli.prompt_lines import lines_of
    from janusflow.pipelines.provenance import provenance_of, settings_of

    texts = None if prompt_file is None else lines_of(prompt_file)
    made = None if source is None else provenance_of(source)
    before = None if source is None else settings_of(source)
    for given in (asked["image"], asked["mask"]):
        if given is not None and not given.expanduser().exists():
            raise ValueError(f"picture {quoted(str(given))} does not exist")

    from janusflow.cli.pictures import check_again, from_words, merged, opening_of, settings_for
    from janusflow.cli.prompt_file import from_file
    from janusflow.engine.generation import choose_seeds
    from janusflow.pipelines.sheet import output_folder
    from janusflow.presets import KNOBS

    if before is not None and asked["preset"] is not None:
        before = {name: value for name, value in before.items() if name not in KNOBS}
    if made is not None and before is not None:
        asked, opening = merged(before, asked), merged(opening_of(made), opening)
        prompts = prompts or [made.settings["prompts"]]
        del asked["prompts"]
    first = asked.pop("seed")
    seeds = choose_seeds(first, len(prompts or [""]), num_images)
    opening = {name: value for name, value in opening.items() if value is not None}
    with output_folder(out):
        opened = options.open_model(**{"model": "tiny"} | here | opening)
        settings = settings_for(opened, asked)
        if made is not None and source is not None:
            check_again(opened, made, asked, source)
        if prompt_file is not None and texts is not None:
            from_file(opened, prompt_file, texts, settings, out, pictures=num_images, seed=first, batch_size=batch_size)
        else:
            named = [prompt for prompt in prompts for _ in range(num_images)]
            from_words(opened, named, seeds, settings, out, batch_size)
