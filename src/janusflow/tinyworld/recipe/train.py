"""The shipped model's recipe: tokenizer, then VAE, tower and LLM as small pretrained parts, then the paper's stages.

    python -m janusflow.tinyworld.recipe.train --out runs/tiny

The parts are made by `tiny_parts.py`, the stages are the files of `recipes/tiny`; between the second and the third
stand rounds on the states of the model's own paths (Reflow, `tiny_reflow.py`). At last prompts that leave open who
stands where learn to be drawn as they are with the order said (`order.yaml`), those that leave open what stands there
as they are with the kinds said (`words.yaml`), and pictures are read once more (`reading.yaml`, twice). Everything
stops and resumes at any time with the same command; the result is a folder that `JanusFlow.from_pretrained` opens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from janusflow.data.reflow import ReflowConfig
from janusflow.device import resolve_device
from janusflow.tinyworld.recipe.parts import PartsRecipe, pretrain
from janusflow.tinyworld.recipe.reflow import ON_POLICY, draw_pairs
from janusflow.training.config import load_config
from janusflow.training.publish import publish
from janusflow.training.stop import leave_at_once, on_stop
from janusflow.training.trainer import train

ROUNDS = 6  # of training on the model's own states
PAIRS = 2688  # drawn for each
TRIED_PAIRS = 12  # with few steps


@dataclass(frozen=True)
class Stage:
    """A recipe, and what the model draws before it to be trained on there.

    Attributes:
        name: of its folder.
        recipe: its file, without `.yaml`.
        seed: of its data, where that is not the recipe's.
        draws: how pairs are drawn.
        pairs: how many.
    """

    name: str
    recipe: str
    seed: int | None = None
    draws: tuple[ReflowConfig, ...] = ()
    pairs: int = 0


def stages(rounds: int = ROUNDS) -> list[Stage]:
    """Return all stages, with this number of rounds on the model's own states."""

    def own_states(name: str, recipe: str, number: int) -> Stage:
        draws = tuple(replace(one, seed=one.seed + 100_000 * number) for one in ON_POLICY)
        return Stage(name, recipe, 100 + number, draws, PAIRS)

    return [
        Stage("stage1", "stage1"),
        Stage("stage2", "stage2"),
        *(own_states(f"onpolicy{number}", "onpolicy", number) for number in range(1, rounds + 1)),
        own_states("stage3", "stage3", rounds + 1),
        Stage("order", "order"),
        Stage("words", "words"),
        Stage("reading1", "reading"),
        Stage("reading2", "reading", 506),
    ]


def run(
    out: Path,
    recipes: Path,
    *,
    start: str | None = None,
    device: str = "auto",
    steps: int | None = None,
    rounds: int = ROUNDS,
) -> Path:
    """Pretrain the parts, train the stages and write the model, skipping what is done.

    Args:
        out: folder of the run.
        recipes: folder of the stages' recipes.
        start: a trained model to go on from with rounds on its own states, stage 3, order, words and reading.
        device: where.
        steps: largest number per part and stage, to try it out.
        rounds: on the model's own states.

    Returns:
        The folder of the finished model.
    """
    recipe = PartsRecipe() if steps is None else PartsRecipe().shortened(steps)
    before = start or str(pretrain(recipe, out, resolve_device(device)))
    first, afterwards = stages(rounds)[:2], stages(rounds)[2:]
    for stage in [*first, *afterwards] if start is None else afterwards:
        export = out / stage.name / "export"
        if not export.is_dir():
            changes = [f"model={before}", f"out={out / stage.name}"]
            changes += [] if stage.seed is None else [f"seed={stage.seed}"]
            changes += [] if steps is None else [f"steps={steps}", "batch_size=8", "watch.every=0", "compile=false"]
            if stage.draws:
                pairs, count = out / "pairs" / stage.name, stage.pairs if steps is None else TRIED_PAIRS
                draw_pairs(before, pairs, stage.draws, count, device=device)
                changes += [f"data.generation.0.path={pairs}"]
            train(load_config(recipes / f"{stage.recipe}.yaml", changes), resume=True, device=device)
            if not export.is_dir():
                raise SystemExit(0)  # stopped: repeat the command to continue
        before = str(export)
    return publish(before, out / "model")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one continues it.")] = Path("runs/tiny"),
    recipes: Annotated[Path, typer.Option(help="Folder of the stages' recipes.")] = Path("recipes/tiny"),
    start: Annotated[str | None, typer.Option(help="Go on from a trained model: 'tiny' or a folder.")] = None,
    steps: Annotated[int | None, typer.Option(help="Largest number per part and stage, to try it out.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of training on the model's own states.")] = ROUNDS,
    device: Annotated[str, typer.Option(help="auto, cpu, ...")] = "auto",
) -> None:
    """Train the tiny model from nothing; stop and repeat the command to continue."""
    with on_stop(leave_at_once):
        folder = run(out, recipes, start=start, device=device, steps=steps, rounds=rounds)
    print(f"trained: {folder}")


if __name__ == "__main__":
    typer.run(main)
