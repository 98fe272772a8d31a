"""Replay against forgetting: before a run, the model generates pictures from known noise and trains on these pairs.

Other pictures, even good ones, bend the paths of a model that has learned from its own (docs/training.md, Reflow). So a
fine-tuned model should keep generating what it generates now, with the states of its paths (`data/reflow.py`).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from janusflow.checkpoint import open_checkpoint
from janusflow.data.reflow import ReflowConfig, judged, reflow
from janusflow.data.sources import SourceConfig
from janusflow.data.sources.parquet import ParquetConfig
from janusflow.data.sources.replay import ReplayConfig
from janusflow.functions import code_of, load_function
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import sources_of
from janusflow.training.distributed import World

STEPS, STATES = 12, 9  # states up to about t = 2/3
SEED = 60_000_000  # seed of the noise


def replays(config: TrainConfig) -> list[ReplayConfig]:
    """Return the replays that a run generates."""
    generates = any(ratio.generation for ratio in config.data.ratios)
    return [
        source for source in sources_of(config.data)["generation"] if generates and isinstance(source, ReplayConfig)
    ]


def drawn_sources(config: TrainConfig, world: World) -> dict[str, list[SourceConfig]]:
    """Return the sources of a run, with its replays generated into the run's folder, where a resumed run finds them.

    One process generates while the others wait.

    Raises:
        ValueError: if another source, or a replay's prompts, judge or teacher, cannot be opened, or none of its
            pictures is right.
    """
    sources = sources_of(config.data)
    found = {number: one for number, one in enumerate(sources["generation"]) if isinstance(one, ReplayConfig)}
    folders = {number: Path(config.out) / f"replay{number}" for number in found}
    if not replays(config):
        return sources
    failed: Exception | None = None
    if world.first:
        try:
            if not all(folder.exists() for folder in folders.values()):
                _check(config, sources, world)
            for number, folder in folders.items():
                _draw(config, found[number], number, folder, world)
        except Exception as error:
            failed = error
    if world.any(failed is not None):  # all must end, or some would wait
        raise failed or ValueError("the first process could not generate the replay; see its message")
    for number, folder in folders.items():
        weight, anchor, crop = found[number].weight, found[number].anchor, found[number].crop
        sources["generation"][number] = ParquetConfig(path=str(folder), weight=weight, anchor=anchor, crop=crop)
    return sources


def _check(config: TrainConfig, sources: dict[str, list[SourceConfig]], world: World) -> None:
    """Check every source before generating, which takes minutes."""
    for task, given in sources.items():
        for source in given:
            source.open(task, config.seed, world.rank, world.ranks)
            if isinstance(source, ReplayConfig) and source.judge:
                load_function(source.judge, "a replay's judge")
            if isinstance(source, ReplayConfig) and source.teacher:
                try:
                    open_checkpoint(source.teacher)
                except ValueError as error:
                    raise ValueError(f"the replay's teacher cannot be opened: {error}") from error


def _without(config: TrainConfig) -> str:
    return ", or train without it: data.own_share=1" if config.data.own and config.data.own_share < 1 else ""


def _draw(config: TrainConfig, source: ReplayConfig, number: int, folder: Path, world: World) -> None:
    """Generate the replay that is generation source `number`."""

    def opened(name: str) -> JanusFlow:
        return JanusFlow.from_pretrained(name, vae=config.model.vae, dtype=config.precision, device=world.device)

    start = str(config.model.checkpoint)
    model, teacher = opened(start), opened(source.teacher) if source.teacher else None
    names = {"model": start, "teacher": source.teacher, "pictures of the replay": source.images}
    names |= {"vae": config.model.vae}
    seed = SEED + 1_000_000 * config.seed + 100_000 * number
    prompts, accept = source.prompts(seed)
    if source.judge:
        judge = load_function(source.judge, "a replay's judge")
        accept = judged(judge, prompts, source.min_score)
        names |= {"judge": source.judge, "the judge's code": code_of(judge), "min_score": source.min_score}
    settings = ReflowConfig(
        steps=STEPS, guidance=source.guidance, seed=seed, batch_size=48, shard_size=240, states=STATES
    )
    counts = reflow(model, prompts, folder, settings, teacher=teacher, accept=accept, names=names)
    if not counts["kept"]:
        shutil.rmtree(folder)
        author = source.teacher or start
        if source.judge:
            asked = f"{counts['drawn']} pictures by {author}"
            raise ValueError(f"{source.judge} gave none of {asked} a score of {source.min_score:g} or more")
        raise ValueError(
            f"none of {counts['drawn']} pictures by {author} shows its prompt, so there is nothing to keep; "
            f"give rendered ones with 'data.generation.{number}={{kind: {source.path}}}'{_without(config)}"
        )
    print(f"replay: {counts['kept']} of {counts['drawn']} generated pictures are trained on, too", file=sys.stderr)
