"""Checks that need the whole configuration: settings that do not go together, and data that is missing."""

from __future__ import annotations

from importlib.util import find_spec

from janusflow.arguments import quoted
from janusflow.data.mixture import TASKS, Mixture
from janusflow.families import families
from janusflow.training.config.model import LoraConfig
from janusflow.training.config.run import TrainConfig
from janusflow.training.config.sources import own_tasks, sources_of, weights_of
from janusflow.training.losses import terms
from janusflow.training.trainable import TAUGHT_BY


def check_config(config: TrainConfig) -> None:
    """Check that the settings of a run go together, and that its own data can be read.

    Raises:
        ValueError: if not; the message is one sentence.
    """
    for check in (_check_losses, _check_model, _check_parts, _check_watch, _check_own, _check_sources):
        check(config)


def _check_losses(config: TrainConfig) -> None:
    for name in config.loss.weights:
        if hasattr(config.loss, name):
            raise ValueError(f"loss.weights has {quoted(name)}, whose weight is loss.{name}")
        if name not in terms():
            raise ValueError(f"loss.weights has {quoted(name)}; known terms are {', '.join(terms())}")
    if not any(config.loss.weight(name) for name in terms()):
        raise ValueError(f"the weights of {', '.join(terms())} in loss are all 0, so there is nothing to learn")


def _check_model(config: TrainConfig) -> None:
    model = config.model
    if (model.checkpoint is None) == (model.preset is None):
        raise ValueError("give exactly one of model.checkpoint and model.preset")
    if model.preset is not None and model.processor is None:
        raise ValueError(f"model.preset {quoted(model.preset)} needs model.processor, for its tokenizer")
    for name in ("llm", "tower", "processor") if model.checkpoint is not None else ():
        if getattr(model, name) is not None:
            raise ValueError(f"model.{name} is for a new network (model.preset); model.checkpoint has its own")


def _check_parts(config: TrainConfig) -> None:
    parts = config.parts
    known = dict.fromkeys(part for family in families().values() for part in family.trainable)
    if not parts or not known.keys() >= set(parts):
        raise ValueError(f"parts are {parts}; expected some of {', '.join(known)}")
    if not config.lora.rank and config.lora != LoraConfig():
        raise ValueError("lora has settings but no rank; give lora.rank to train adapters")
    if config.lora.rank and "llm" not in parts:
        raise ValueError(f"lora.rank is {config.lora.rank}, but parts {parts} leave the llm out")
    if config.lora.rank and "tower" in parts and not config.lora.tower:
        raise ValueError(
            "lora.rank is given, so the tower in parts learns only by adapters: "
            "give lora.tower=true, or leave tower out of parts"
        )
    if config.lora.rank and config.freeze:
        raise ValueError("freeze is for parts that are trained in full; leave it out, or lora.rank")
    taught = {task for task in TASKS if any(getattr(ratio, task) > 0 for ratio in config.data.ratios)}
    if not any(part not in TAUGHT_BY or TAUGHT_BY[part] in taught for part in parts):
        only = " and ".join(sorted({TAUGHT_BY[part] for part in parts}))
        raise ValueError(f"parts are {parts}, which learn only from {only}, and data.ratios give it no share")


def _check_watch(config: TrainConfig) -> None:
    if config.watch.every and not config.watch.prompts:
        raise ValueError("watch.every asks for sheets of pictures, which need watch.prompts")
    if config.watch.wandb and find_spec("wandb") is None:
        raise ValueError("watch.wandb is on, but the package wandb is not installed")


def _check_own(config: TrainConfig) -> None:
    own = [config.data.own] if isinstance(config.data.own, str) else config.data.own
    if own is not None and (not own or len(set(own)) < len(own)):
        raise ValueError(f"data.own is {own}; expected one or more folders or files, each once")
    by_path: dict[str, list[str]] = {}
    for task, places in own_tasks(config.data).items():
        for _, path in places:
            by_path.setdefault(path, []).append(task)
    for path, tasks in by_path.items():
        if not any(getattr(ratio, task) > 0 for ratio in config.data.ratios for task in tasks):
            raise ValueError(
                f"{path} serves only {' and '.join(tasks)}, which data.ratios give no share; "
                "give another recipe or other ratios"
            )


def _check_sources(config: TrainConfig) -> None:
    sources = sources_of(config.data)
    for task, given in sources.items():
        for source in given:
            try:
                source.check(task, checkpoint=config.model.checkpoint is not None)
            except ValueError as error:
                raise ValueError(f"data.{task}: {error}") from error
    crops = [source.crop or config.samples.crop for source in sources["generation"]]
    if config.data.cache is not None and "random" in crops:
        raise ValueError("data.cache keeps the latents of whole pictures; it needs samples.crop=center or pad")
    Mixture(config.data.ratios, weights_of(config.data), batch_size=config.batch_size, seed=config.seed)
