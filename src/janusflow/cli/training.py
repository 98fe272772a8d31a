"""The commands that train and prepare data: `janusflow train`, `pretrain` and `data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from janusflow.arguments import quoted
from janusflow.cli.options import Debug, Device, Dtype, Model, SuggestingCommand, one_sentence
from janusflow.functions import code_of, load_function

if TYPE_CHECKING:
    from janusflow.data.prepare import Captioner, Scorer
    from janusflow.data.prepared import State

CAPTION_TOKENS = 256
DESCRIBE = "Describe the picture."
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Overrides of the recipe; docs/reference/training.md lists the keys."
    ),
]

Export = Annotated[str, typer.Option(help="Layout of the export: janusflow, or official to write both.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what the run would do, and estimate its time.")]
Measure = Annotated[
    bool, typer.Option("--measure/--no-measure", help="Whether --dry-run measures a few steps on this machine.")
]
ExportOnly = Annotated[
    Optional[Path],
    typer.Option(
        "--export-only", metavar="OUT", help="Export the last checkpoint of the run in OUT, without a recipe."
    ),
]

data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@one_sentence
def train(
    recipe: Annotated[Optional[Path], typer.Argument(help="A YAML file; see recipes/.")] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in out=FOLDER.")] = False,
    export: Export = "janusflow",
    dry_run: DryRun = False,
    measure: Measure = True,
    export_only: ExportOnly = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Train from scratch or fine-tune on one device, or on many under torchrun.

    [bold]Examples[/bold]

      janusflow train recipes/tiny/stage2.yaml model=tiny --dry-run

      janusflow train recipes/tiny/finetune_both.yaml model=tiny data=my_pictures out=runs/mine

      janusflow train --export-only runs/mine

      janusflow train recipes/finetune/both.yaml model=tiny data=\\[my_pictures,talks.jsonl] crop=pad out=runs/mine

      torchrun --nproc-per-node 8 -m janusflow.cli train recipes/paper/stage3.yaml model=runs/stage2/export
    """
    from janusflow.training.config import load_config

    if export not in ("janusflow", "official"):
        raise ValueError(f"--export is {quoted(export)}; expected janusflow and official")
    given = overrides or []
    if export_only is not None:
        if resume or dry_run:
            raise ValueError("--export-only does not train, so it takes neither --resume nor --dry-run")
        from janusflow.training.export_only import export_only as write

        changes = [*([] if recipe is None else [str(recipe)]), *given]
        _print_once(write(export_only, device=device, official=export == "official", overrides=changes))
        return
    if recipe is None:
        raise ValueError("no recipe is given; expected a YAML file such as recipes/finetune/both.yaml")
    config = load_config(recipe, given)
    if dry_run:
        from janusflow.training.dryrun import describe
        from janusflow.training.measure import measured

        print(describe(config), flush=True)
        if measure:
            print(measured(config, device=device))
        return
    from janusflow.training.trainer import train as run

    _print_once(run(config, resume=resume, device=device, official=export == "official"))


@one_sentence
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; see recipes/pictograms/parts.yaml.")],
    overrides: Overrides = None,
    steps: Annotated[
        Optional[int], typer.Option(help="Only this many steps of each part, to check that everything runs.")
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Pretrain small parts on your own data: tokenizer, VAE, SigLIP tower and language model.

    Stage 1 starts from the result. The command can be stopped at any time; repeat it to continue.

    [bold]Examples[/bold]

      janusflow pretrain recipes/pictograms/parts.yaml out=runs/parts

      janusflow train recipes/pictograms/stage1.yaml model=runs/parts/export out=runs/stage1
    """
    from janusflow.training.parts.config import load_parts
    from janusflow.training.parts.pretrain import pretrain as run

    config = load_parts(recipe, overrides or [])
    print(run(config if steps is None else config.shortened(steps), device=device))


def _print_once(made: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # only the first of several processes prints
        print(made)


@data.command(cls=SuggestingCommand)
@one_sentence
def prepare(
    source: Annotated[str, typer.Argument(help="Folder or files with pictures; a hub id with --kind hub.")],
    out: Annotated[Path, typer.Option(help="Folder for shards and report; rerun with the same folder to resume.")],
    kind: Annotated[Optional[str], typer.Option(help="folder, jsonl, parquet, webdataset or hub.")] = None,
    split: Annotated[Optional[str], typer.Option(help="Split of a folder or hub id, or all; train by default.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read without downloading or indexing everything.")
    ] = False,
    format: Annotated[str, typer.Option(help="webdataset or parquet.")] = "webdataset",
    min_side: Annotated[int, typer.Option(help="Smallest length of the shorter side, in pixels.")] = 256,
    max_aspect: Annotated[float, typer.Option(help="Largest ratio of the longer side to the shorter.")] = 2.0,
    scorer: Annotated[Optional[str], typer.Option(help="module:function that returns a picture's score.")] = None,
    min_score: Annotated[Optional[float], typer.Option(help="Minimum score of a picture; 0 by default.")] = None,
    caption: Annotated[Optional[str], typer.Option(help="Model for new captions: tiny, a folder, a hub id.")] = None,
    endpoint: Annotated[Optional[str], typer.Option(help="OpenAI-compatible endpoint for new captions.")] = None,
    endpoint_model: Annotated[
        Optional[str], typer.Option(help="The model's name at the endpoint; 'default' if it is not given.")
    ] = None,
    question: Annotated[
        Optional[str], typer.Option(help=f"Question for the captioning model; '{DESCRIBE}' if it is not given.")
    ] = None,
    short_share: Annotated[float, typer.Option(help="Share of captions cut to their first sentence.")] = 0.25,
    shard_size: Annotated[int, typer.Option(help="Records per shard.")] = 1000,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Filter, caption and deduplicate pictures, and write them as shards with a report.

    Conversations are filtered too, and otherwise left unchanged.

    [bold]Examples[/bold]

      janusflow data prepare my_pictures --out shards --min-side 384

      janusflow data prepare my_pictures --out shards --caption deepseek-ai/JanusFlow-1.3B
    """
    from janusflow.data.prepare import PrepareConfig
    from janusflow.data.prepare import prepare as run
    from janusflow.data.sources import file_config, kind_of

    _check_used("--endpoint-model", endpoint_model, "--endpoint", endpoint)
    _check_used("--question", question, "--caption or --endpoint", caption or endpoint)
    _check_used("--min-score", min_score, "--scorer", scorer)
    config = PrepareConfig(
        min_side=min_side,
        max_aspect=max_aspect,
        min_score=min_score or 0.0,
        short_share=short_share,
        format=format,  # type: ignore[arg-type]  # checked there
        shard_size=shard_size,
    )
    kind = kind or kind_of(source, captions=False)
    if split is not None and kind not in ("folder", "hub"):
        raise ValueError(f"--split is for folders of pictures and hub ids; {source} is read as {kind}")
    place = file_config(kind, source, split=split or "train", streaming=streaming)
    if unread := place.unread():
        print(f"{unread}, choose with --split")
    rate: Scorer | None = None if scorer is None else load_function(scorer, "--scorer")
    named, asked = endpoint_model or "default", question or DESCRIBE
    anew = _captioner(caption, endpoint, named, asked, device)
    names = {"--caption": caption, "--endpoint": endpoint, "--scorer": scorer}
    if anew is not None:
        names |= {"--endpoint-model": named, "--question": asked}
    _print_prepared(run(place, out, config, captioner=anew, scorer=rate, names=names), out, min_side)


def _print_prepared(state: State, out: Path, min_side: int) -> None:
    """Print what a preparation kept and dropped; raise an error if it kept nothing."""
    from janusflow.data.prepared import DROPPED, OTHER_FILES, SHEET, cropping

    summary = f"{state.summary()}; see {out / 'report.md'}"
    if not state.counts["kept"]:
        hint = f" (--min-side is {min_side})" if state.counts["too small"] else ""
        most = next(reason for reason, _ in state.counts.most_common() if reason not in OTHER_FILES)
        raise ValueError(f"{summary}: most are {quoted(most)}{hint}")
    print(summary)
    print(f"dropped: {state.dropped_in_words()}; each is named in {out / DROPPED}")
    if state.other_files():
        print(f"files that are not records: {state.other_files()}; each is named in {out / DROPPED}")
    for note, count in state.notes.most_common():
        print(f"{count} x {note}")
    if cropping(state):
        print(cropping(state))
    print(f"some of what was kept: {out / SHEET}")


@data.command(cls=SuggestingCommand)
@one_sentence
def reflow(
    prompts: Annotated[Path, typer.Argument(help="A file with a prompt per line, or .jsonl with `prompt`.")],
    out: Annotated[Path, typer.Option(help="Folder for the pairs; rerun with the same folder to resume.")],
    model: Model = "tiny",
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Pictures per prompt.")] = 1,
    steps: Annotated[int, typer.Option(help="Euler steps from noise to picture.")] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale; the model learns it from the pairs.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the first picture; the next ones get the following seeds.")] = 0,
    states: Annotated[int, typer.Option(help="Number of states of each path to also train from.")] = 0,
    teacher: Annotated[Optional[str], typer.Option(help="Another model whose pictures are kept instead.")] = None,
    judge: Annotated[Optional[str], typer.Option(help="module:function(prompt, picture) that returns a score.")] = None,
    min_score: Annotated[Optional[float], typer.Option(help="Minimum score of a picture; 0.5 by default.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures generated at once.")] = 16,
    shard_size: Annotated[int, typer.Option(help="Pictures generated per file.")] = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Generate pictures from known noise, judge them, and write the pairs that Reflow trains on.

    [bold]Examples[/bold]

      janusflow data reflow prompts.txt --model tiny --guidance 3 --num-images 4 --out pairs

      janusflow data reflow prompts.txt --judge my_judge:score --min-score 0.8 --out pairs

      janusflow data reflow prompts.txt --model runs/mine/export --teacher tiny --states 9 --steps 12 --out kept

      janusflow train recipes/tiny/finetune_reflow.yaml model=tiny data.generation.0.path=pairs out=runs/straight
    """
    from janusflow.data.reflow import ReflowConfig, judged, read_prompts
    from janusflow.data.reflow import reflow as run
    from janusflow.pipelines.janusflow import JanusFlow

    _check_used("--min-score", min_score, "--judge", judge)
    least = 0.5 if min_score is None else min_score
    config = ReflowConfig(
        images=num_images,
        steps=steps,
        guidance=guidance,
        seed=seed,
        batch_size=batch_size,
        shard_size=shard_size,
        states=states,
    )
    asked = read_prompts(prompts)
    rate = None if judge is None else load_function(judge, "--judge")
    accept = None if rate is None else judged(rate, asked, least)
    opened = JanusFlow.from_pretrained(model, device=device, dtype=dtype)
    try:
        taught = None if teacher is None else JanusFlow.from_pretrained(teacher, device=device, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"--teacher cannot be opened: {error}") from error
    names = {"--model": model, "--dtype": dtype, "--judge": judge, "--min-score": least if judge else None}
    names |= {} if teacher is None else {"--teacher": teacher}
    names |= {} if rate is None else {"the judge's code": code_of(rate)}
    counts = run(opened, asked, out, config, teacher=taught, accept=accept, names=names)
    print(f"{counts['kept']} of {counts['drawn']} pairs kept in {out}")


def _check_used(option: str, value: object, needed: str, given: object) -> None:
    """Reject an option that has no effect without another one."""
    if value is not None and given is None:
        raise ValueError(f"{option} has no effect without {needed}")


def _captioner(
    model: str | None, endpoint: str | None, endpoint_model: str, question: str, device: str
) -> Captioner | None:
    if model is not None and endpoint is not None:
        raise ValueError("give --caption or --endpoint, not both")
    if endpoint is not None:
        from janusflow.evaluation.judges.endpoint import EndpointJudge, EndpointOptions

        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"--endpoint is {quoted(endpoint)}; expected an address such as https://HOST/v1")
        far = EndpointJudge(endpoint_model, endpoint, EndpointOptions(max_tokens=CAPTION_TOKENS, empty=True))
        return lambda pictures: [far.reply(question, [picture]) for picture in pictures]
    if model is not None:
        from janusflow.pipelines.base import Pipeline

        near = Pipeline.from_pretrained(model, device=device)
        return lambda pictures: near.ask_batch([question] * len(pictures), pictures, max_new_tokens=CAPTION_TOKENS)
    return None
