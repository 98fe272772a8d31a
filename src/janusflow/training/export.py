"""The export of a run: the EMA weights as a checkpoint, with adapters, loss heads and model cards."""

from __future__ import annotations

import copy
import shutil
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.initialization import no_init_weights

from janusflow.building import BUILDING
from janusflow.checkpoint import find_folder
from janusflow.checkpoint.card import write_trained_card
from janusflow.checkpoint.convert import where_vae_is
from janusflow.checkpoint.export import export as export_to
from janusflow.checkpoint.special_tokens import set_special_tokens
from janusflow.families import family_of
from janusflow.files import replace_folder, temporary_path
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.training.card import card_text
from janusflow.training.config import TrainConfig
from janusflow.training.distributed import World, whole
from janusflow.training.ema import Ema
from janusflow.training.lora import add_adapters
from janusflow.training.objective import Objective
from janusflow.training.start import HEAD
from janusflow.training.step import TrainState


def averaged_heads(objective: Objective, ema: Ema) -> dict[str, dict[str, Tensor]]:
    """Return the averages of the loss heads by term, gathered from all processes, which must all call this."""
    return {
        term: {
            name: whole(ema.values[f"{attribute}.{name}"].detach()).cpu().contiguous()
            for name, _ in objective.get_submodule(attribute).named_parameters()
        }
        for term, attribute in objective.heads.items()
    }


def averaged_model(
    objective: Objective, ema: Ema, model: JanusFlow, world: World, config: TrainConfig
) -> JanusFlow | None:
    """Return a pipeline with the averages in place of the trained weights, gathered from all processes.

    Every process must call this; only the first gets the pipeline. Adapters stay separate from the weights: see
    `JanusFlow.adapters`.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in objective.network.named_parameters():
        value = whole((ema.values[f"network.{name}"] if parameter.requires_grad else parameter).detach())
        if world.first:
            state[name] = value
    if not world.first:
        return None
    with BUILDING, no_init_weights(), torch.device(world.device):
        sizes = copy.deepcopy(model.network.config)
        network = family_of(sizes).network._from_config(sizes, dtype=torch.float32)
    adapters = add_adapters(network, config.lora, config.parts) if config.lora.rank else None
    network.load_state_dict(state)
    network.set_attn_implementation("sdpa")
    network.generation_config = set_special_tokens(sizes, model.processor)
    averaged = copy.copy(model)
    averaged.network, averaged.adapters = network.eval().requires_grad_(False), adapters
    if averaged.family.separate_vae:
        averaged.give_latents()
    averaged.origin, averaged.opened = None, {}
    return averaged


def export(state: TrainState, model: JanusFlow, folder: Path, *, official: bool = False) -> Path:
    """Write the EMA weights as a folder in our layout. It is renamed when complete, so it is complete or absent.

    Adapters are written to `adapter/` in the folder and also merged into the folder's weights. The loss heads are
    written too, and a run that starts from this folder starts with them. Each folder has a model card.

    Args:
        state: state of the run with the averages; all its processes must call this.
        model: the model that the run started from.
        folder: output folder; an older export is replaced.
        official: also write the same weights in the official layout, into `<folder>-official`.

    Returns:
        The folder.
    """
    config, world = state.config, state.world
    official_folder = folder.with_name(f"{folder.name}-official")
    averaged = averaged_model(state.objective, state.ema, model, world, config)
    heads = averaged_heads(state.objective, state.ema)
    if averaged is not None:
        with temporary_path(folder) as temporary:
            temporary.mkdir()
            if averaged.adapters is not None:
                averaged.adapters.peft_config["default"].base_model_name_or_path = config.model.checkpoint
                # Embeddings have no adapters; by default PEFT asks the hub whether they were changed.
                averaged.adapters.save_pretrained(temporary / "adapter", save_embedding_layers=False)
                _write_card(temporary / "adapter", state, model, adapter=True)
                averaged.merge_adapters()
            averaged.save_pretrained(temporary)
            for term, head in heads.items():
                save_file(head, temporary / HEAD.format(term))
            _write_card(temporary, state, model)
            replace_folder(temporary, folder)
        if official:
            _write_official(state, model, averaged, folder, official_folder)
        elif official_folder.is_dir():
            warnings.warn(
                f"{official_folder} is of an earlier export; to replace it, give --export official", stacklevel=2
            )
    world.wait()
    return folder


def _write_official(state: TrainState, model: JanusFlow, averaged: JanusFlow, folder: Path, place: Path) -> None:
    """Write the weights of an export in the official layout too, into `place`."""
    sizes, weights = averaged.network.config, dict(averaged.network.named_parameters())
    licence = next(iter(sorted(find_folder(state.config.model.checkpoint or "tiny").glob("LICENSE*"))), None)
    export_to(averaged.family.layout("official"), sizes, weights, averaged.processor, place, licence=licence)
    if (folder / "vae").is_dir():
        shutil.copytree(folder / "vae", place / "vae", dirs_exist_ok=True)
    _write_card(place, state, model, more=where_vae_is(place))


def _write_card(folder: Path, state: TrainState, model: JanusFlow, *, adapter: bool = False, more: str = "") -> None:
    config, out = state.config, Path(state.config.out)
    text = card_text(config, state.progress, out / "log.jsonl", adapter=adapter)
    text += f"\n\n{more}" if more else ""
    title = f"{out.resolve().name}{' adapters' if adapter else ''}"
    base = config.model.checkpoint
    write_trained_card(folder, model.origin, title=title, text=text, base_model=base, adapter=adapter)
