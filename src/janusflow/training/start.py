"""The start of a run: a checkpoint, or a new network from parts. `export.py` writes the result of the run."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, SiglipVisionModel

from janusflow.building import BUILDING, finite, named, open_complete
from janusflow.checkpoint import find_folder, read_sizes
from janusflow.config import VARIANTS
from janusflow.data.sources.replay import ReplayConfig
from janusflow.families import Family, families, family_of
from janusflow.offline import cached_if_unreachable, first_line
from janusflow.pipelines.base import pipeline_of
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.training.config import ModelConfig, TrainConfig
from janusflow.training.config.sources import learned
from janusflow.training.losses import active, terms_of
from janusflow.training.objective import Objective

HEAD = "{}_head.safetensors"  # of a loss's head, next to a trained model's weights


def open_model(config: TrainConfig, device: torch.device) -> JanusFlow:
    """Open the network in float32, with processor and VAE, as the recipe says.

    Raises:
        ValueError: if a part cannot be opened or does not fit; errors of `check_sizes` come before any weight is read.
    """
    check_sizes(config)
    return open_start(config, device)


def open_start(config: TrainConfig, device: torch.device) -> JanusFlow:
    """Open the same network without looking at the data of the recipe.

    Raises:
        ValueError: if a part cannot be opened or does not fit.
    """
    start = config.model
    if start.checkpoint is not None:
        opened = JanusFlow.from_pretrained(start.checkpoint, vae=start.vae, dtype="float32", device=device)
        return _as_variant(opened, config)
    for part in ("llm", "tower"):
        if part not in config.parts and getattr(start, part) is None:
            raise ValueError(f"{part} would stay as it is, but a new one knows nothing; give model.{part}=FOLDER_OR_ID")
    torch.manual_seed(config.seed)
    processor, sizes = _processor(start)
    family = family_of(sizes)
    check_codec(start, family)
    with BUILDING:
        network = family.network(sizes)
    if start.llm is not None:
        llm = open_part(AutoModelForCausalLM, start.llm, "model.llm")
        _take(network.get_submodule(family.blocks.removesuffix(".layers")), llm.model.state_dict(), start.llm)
        _take(network.lm_head, llm.lm_head.state_dict(), start.llm)
    if start.tower is not None:
        take_tower(network, open_part(SiglipVisionModel, start.tower, "model.tower"), start.tower)
    if family.codec:
        codec = JanusFlow.from_pretrained(str(start.vae), dtype="float32", device=device).network
        _take(network.get_submodule(family.codec), codec.get_submodule(family.codec).state_dict(), str(start.vae))
    parts = {"vae": start.vae} if family.separate_vae else {}
    model: Any = pipeline_of(family).assemble(network.eval().to(device), processor, **parts)
    return model


def check_codec(start: ModelConfig, family: Family) -> None:
    """Check where a new network gets its codec from.

    Raises:
        ValueError: if its family has a codec in the network and `model.vae` is not a checkpoint of this family.
    """
    if not family.codec:
        return
    if start.vae is None:
        raise ValueError(f"a new {family.name} has no codec; give model.vae=CHECKPOINT, whose codec it takes")
    if (theirs := family_of(read_sizes(start.vae))) is not family:
        raise ValueError(f"model.vae is {start.vae}, a {theirs.name} model, but a new {family.name} takes its codec")


def take_tower(network: Any, tower: SiglipVisionModel, source: str = "the tower") -> None:
    """Load the weights of a SigLIP tower, without its pool head, into a network of any family.

    Raises:
        ValueError: if the tower does not fit the network.
    """
    family = family_of(network.config)
    place = family.tower("").removesuffix(".")
    wanted = network.get_submodule(place).state_dict().keys()
    state = {family.tower(name).removeprefix(f"{place}."): value for name, value in tower.state_dict().items()}
    _take(network.get_submodule(place), {name: value for name, value in state.items() if name in wanted}, source)


def _as_variant(model: JanusFlow, config: TrainConfig) -> JanusFlow:
    """Return the model with the network variant that the recipe asks for; new parts get random weights."""
    sizes = varied(model.network.config, config.model)
    if sizes is model.network.config:
        return model
    torch.manual_seed(config.seed)
    with BUILDING:
        network = family_of(sizes).network(sizes)
    network.load_state_dict(model.network.state_dict(), strict=False)  # equal except for the understanding encoder
    model.network = network.eval().to(model.network.device)
    model.give_latents()
    return model


def varied(sizes: Any, start: ModelConfig) -> Any:
    """Return the dimensions with the variants that a recipe asks for; the same object if nothing changes.

    Raises:
        ValueError: if the dimensions do not allow a variant.
    """
    asked = {name: value for name in VARIANTS if (value := getattr(start, name, None)) is not None}
    for name in asked:
        if not hasattr(sizes, name):
            raise ValueError(f"{name} is a setting of JanusFlow; a {family_of(sizes).name} model has no such variant")
    changes = {name: value for name, value in asked.items() if value != getattr(sizes, name)}
    return type(sizes).from_dict({**sizes.to_dict(), **changes}) if changes else sizes


def check_sizes(config: TrainConfig) -> Any:
    """Read the dimensions of the model to train, without its weights, and check them against the losses.

    Raises:
        ValueError: if the model cannot be trained, its data cannot change it, REPA is used on a block that does not
            exist or on unequal grids, or a user's own data is mixed with data that is rendered in another size than
            the model's pictures.
    """
    sizes = sizes_of(config.model)
    sources = learned(config.data)
    if all(source.anchor for *_, source in sources):
        raise ValueError("all data is anchored to what the model says already, so it learns nothing; give data=FOLDER")
    family = family_of(sizes)
    for term in active(config.loss, family).values():
        term.check(sizes, config.loss)
    if not any(config.loss.weight(name) for name in terms_of(family)):
        own = ", ".join(terms_of(family))
        raise ValueError(f"the weights of {own} in loss are all 0, so a {family.name} learns nothing")
    side = family.picture(sizes)[0]
    for task, number, source in sources:
        place, replay = f"data.{task}.{number}", isinstance(source, ReplayConfig)
        if replay and family.latent(sizes) is None:
            raise ValueError(f"{place} is a replay, which needs a model that starts from noise; give anchors instead")
        if task == "text" or source.image_size in (None, side) or not (replay or config.data.own):
            continue
        other = f"{place}.path=FILE, a prompt in each line" if replay else f"'{place}={{kind: jsonl, path: FILE}}'"
        optional = config.data.own and config.data.own_share < 1
        without = ", or train without it: data.own_share=1" if optional else ""
        raise ValueError(
            f"{config.model.checkpoint} has pictures of {side} pixels a side and "
            f"{source.path if replay else source.kind} of {source.image_size}; give {other}{without}"
        )
    return sizes


def sizes_of(start: ModelConfig) -> Any:
    """Return the dimensions of a network, from its checkpoint's configuration or its preset.

    Raises:
        ValueError: if the checkpoint cannot be opened, or its family cannot be trained.
    """
    if start.checkpoint is not None:
        try:
            sizes = read_sizes(start.checkpoint)
        except ValueError as error:
            raise ValueError(f"model.checkpoint: {error}") from error
        if not (family := family_of(sizes)).trainable:
            known = " or ".join(name for name, one in families().items() if one.trainable)
            raise ValueError(f"{start.checkpoint} is a {family.name} model; here {known} is trained")
        return varied(sizes, start)
    assert start.preset is not None  # checked with the configuration
    preset = next(one.presets[start.preset] for one in families().values() if start.preset in one.presets)
    return varied(preset(), start)


def _processor(start: ModelConfig) -> tuple[JanusFlowProcessor, Any]:
    """Return another checkpoint's tokenizer with the new network's picture size, and the network's dimensions."""
    assert start.processor is not None
    given, sizes = (
        JanusFlowProcessor.from_pretrained(find_folder(start.processor, what="model.processor")),
        sizes_of(start),
    )
    family = family_of(sizes)
    text = TextSettings(
        family.seen_tokens(sizes), sft_format=given.text.sft_format, system_prompt=given.text.system_prompt
    )
    processor = JanusFlowProcessor(given.tokenizer, text, ImageSettings(sizes.vision_config.image_size))
    if start.preset == "tiny":
        sizes.text_config.vocab_size = len(given.tokenizer)
    for field, attribute in family.token_ids.items():
        setattr(sizes, field, getattr(processor, attribute))
    return processor, sizes


def open_part(kind: Any, path_or_id: str, setting: str) -> Any:
    """Open a pretrained part in float32.

    Raises:
        ValueError: if the part cannot be opened.
    """
    place, why = os.path.expanduser(path_or_id), ""
    try:
        with cached_if_unreachable(place) as why:
            return open_complete(kind, place, dtype=torch.float32)
    except (OSError, ValueError) as error:
        said = why or first_line(error)
        raise ValueError(f"{setting} is {path_or_id!r}, which cannot be opened as {kind.__name__}: {said}") from error


def _take(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the network: {str(error).splitlines()[1].strip()}") from error


def take_heads(objective: Objective, checkpoint: str | None) -> None:
    """Load into the loss heads the weights that the checkpoint's run saved next to the checkpoint, if any fit.

    Raises:
        ValueError: if a file with such weights is damaged.
    """
    for term, attribute in objective.heads.items() if checkpoint is not None else ():
        if not (file := find_folder(str(checkpoint)) / HEAD.format(term)).is_file():
            continue
        what = f"{objective.terms[term].title} starts with a new head"
        try:
            weights = load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is damaged ({first_line(error)}); remove it, and {what}") from error
        if broken := [name for name, value in weights.items() if not finite(value)]:
            where = named(broken, "tensors")
            raise ValueError(
                f"{file} contains values that are not finite floating-point numbers in {where}; remove it, and {what}"
            )
        try:
            objective.get_submodule(attribute).load_state_dict(weights)
        except RuntimeError as error:  # from a network of other dimensions
            said = str(error).splitlines()[-1].strip()
            warnings.warn(f"{file} does not fit, so {what}: {said}", stacklevel=2)
