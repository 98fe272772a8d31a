"""The complete training of the shipped model: data, small pretrained parts, the paper's three stages, weights to ship.

    python -m janusflow.pictograms.recipe --out runs/pictograms

    python -m janusflow.pictograms.recipe --out runs/pictograms stage2.steps=6000 parts.vae.fit.steps=3000

    python -m janusflow.pictograms.recipe --out runs/pictograms --processes 8

    python -m janusflow.pictograms.recipe --recipes recipes/janus_pictograms --out runs/janus_pictograms

Every step is also a command for users: `janusflow pictograms build`, `janusflow pretrain`, `janusflow train`. You can
stop at any time; the same command continues. `JanusFlow.from_pretrained` opens the result, `out/model`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from janusflow.arguments import quoted
from janusflow.cli.options import one_sentence
from janusflow.pictograms.build import BuildConfig, build
from janusflow.pictograms.download import Downloads, default_cache
from janusflow.recipes import read_recipe
from janusflow.training.config import load_config
from janusflow.training.parts.config import load_parts
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.publish import publish
from janusflow.training.stop import leave_at_once, on_stop
from janusflow.training.trainer import train

STAGES = ("stage1", "stage2", "stage3")
FINISHED = "report.json"  # file that every finished data set has
PATIENCE = 60.0  # seconds for the processes of a stage to save and end


def run(
    out: Path,
    recipes: Path,
    data: Path,
    *,
    overrides: Sequence[str] = (),
    downloads: Downloads | None = None,
    device: str = "auto",
    steps: int | None = None,
    processes: int = 1,
) -> Path:
    """Build the data, pretrain the parts, train the stages and write the model, skipping what is done.

    Args:
        out: folder of the run.
        recipes: folder of `parts.yaml`, `stage1.yaml`, `stage2.yaml` and `stage3.yaml`. The pictograms come first in
            their lists of sources.
        data: folder of the data set, which is built if it is missing.
        overrides: `RECIPE.key=value` for settings of the recipes, such as `stage2.steps=6000`.
        downloads: where packages come from.
        device: where to train.
        steps: small number of steps, with small batches, in each part and stage, to check that everything runs.
        processes: number of processes that train a stage together, started by `torchrun`, one per GPU. On two cores
            one process with two threads is faster.

    Returns:
        The folder of the finished model.

    Raises:
        ValueError: if a recipe or data cannot be read, or a loss is not finite.
        ChildProcessError: if the processes of a stage ended with an error, which they have printed.
        SystemExit: with status 0, if SIGTERM ended a stage early.
    """
    given = by_recipe(overrides)
    if not (data / FINISHED).is_file():
        build(data, BuildConfig(), downloads or Downloads(default_cache()))
    recipe = recipes / "parts.yaml"
    lists = [name for name in ("pictures", "texts") if name in read_recipe(recipe)]
    places = [f"out={out / 'parts'}", *(f"{name}.0.path={data}" for name in lists)]
    parts = load_parts(recipe, [*places, *given["parts"]])
    before = pretrain(parts if steps is None else parts.shortened(steps), device=device)
    for stage in STAGES:
        export = out / stage / "export"
        if not export.is_dir():
            changes = [f"model={before}", f"out={out / stage}"]
            changes += [f"data.{task}.0.path={data}" for task in ("understanding", "generation")]
            if "cache" in read_recipe(recipes / f"{stage}.yaml").get("data", {}):
                changes.append(f"data.cache={out / 'cache'}")
            changes += given[stage]
            changes += [] if steps is None else [f"steps={steps}", "batch_size=8", "watch.every=0", "compile=false"]
            if processes > 1:
                train_together(recipes / f"{stage}.yaml", changes, processes, device)
            else:
                train(load_config(recipes / f"{stage}.yaml", changes), resume=True, device=device)
            if not export.is_dir():
                raise SystemExit(0)  # stopped by SIGTERM: the same command continues
        before = export
    model = publish(before, out / "model")
    shutil.copytree(data / "licences", model / "licences", dirs_exist_ok=True)
    return model


def train_together(recipe: Path, changes: Sequence[str], processes: int, device: str) -> None:
    """Run `torchrun ... janusflow train RECIPE`, with one CPU thread per process; pass SIGTERM and Ctrl-C on.

    Raises:
        ChildProcessError: if the command ended with an error.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "janusflow.cli", "train", str(recipe), *changes, "--resume", "--device", device]
    with subprocess.Popen(command) as running:
        try:
            status = running.wait()
        except BaseException:  # raised by `leave_at_once`, or by a second Ctrl-C
            running.terminate()
            running.wait(PATIENCE)
            raise
    if status:
        raise ChildProcessError(f"{recipe} ended with status {status}; the same command continues")


def by_recipe(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Group overrides by their first word, which is removed.

    Raises:
        ValueError: if the first word is not the name of a recipe.
    """
    found: dict[str, list[str]] = {name: [] for name in ("parts", *STAGES)}
    for override in overrides:
        recipe, _, change = override.partition(".")
        if recipe not in found:
            raise ValueError(f"override {quoted(override)} names no recipe; begin it with one of {', '.join(found)}")
        found[recipe].append(change)
    return found


def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE.KEY=VALUE]...", help="Other values, e.g. stage2.steps=6000.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; continued if it exists.")] = Path("runs/pictograms"),
    recipes: Annotated[Path, typer.Option(help="Folder of the recipes.")] = Path("recipes/pictograms"),
    data: Annotated[Path, typer.Option(help="Folder of the data set; built if missing.")] = Path("data/pictograms"),
    steps: Annotated[int | None, typer.Option(help="Small number of steps per part and stage, for a trial.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    processes: Annotated[int, typer.Option(min=1, help="Processes that train a stage together; one per GPU.")] = 1,
) -> None:
    """Train a small model of pictograms and the tiny world from scratch; stop and repeat the command to continue."""
    with on_stop(leave_at_once):
        folder = run(out, recipes, data, overrides=overrides or (), device=device, steps=steps, processes=processes)
    print(f"trained: {folder}")


if __name__ == "__main__":
    typer.run(one_sentence(main))
