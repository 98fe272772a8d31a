"""Describe a checkpoint by its configuration and the headers of its files, without reading weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from janusflow.checkpoint.card import descendant_of
from janusflow.checkpoint.load import empty_network, find_sources, open_checkpoint
from janusflow.checkpoint.special_tokens import open_processor
from janusflow.families.descendants import Descendant


@dataclass(frozen=True)
class Description:
    """One checkpoint at a glance.

    Attributes:
        folder: folder of the checkpoint.
        family: "JanusFlow", "Janus" (also for Janus-Pro), or another one.
        descendant: which released descendant of the family it is, as far as its names say; otherwise None.
        layout: "janusflow", "official", "paddle", "transformers", or another one of the family.
        sft_format: name of the chat template.
        dtypes: dtype of the stored weights to number of tensors.
        dtype: dtype in which they are opened by default.
        bytes: size of the weight files.
        parts: name of each part of the network to its number of parameters and what it is.
        image_size: side of generated pictures, in pixels.
        drawn: what a picture is generated as, in words.
        image_tokens: (understanding, generation) tokens per picture.
        context: number of positions of the LLM.
        separate_vae: whether pixels come from a VAE that is not a part of the network.
        vae: the folder of the VAE next to the weights; None if it is elsewhere or there is none.
    """

    folder: Path
    family: str
    descendant: Descendant | None
    layout: str
    sft_format: str
    dtypes: dict[str, int]
    dtype: torch.dtype
    bytes: int
    parts: dict[str, tuple[int, str]]
    image_size: int
    drawn: str
    image_tokens: tuple[int, int]
    context: int
    separate_vae: bool
    vae: Path | None


def describe(path_or_id: str | Path) -> Description:
    """Describe the checkpoint that `open_checkpoint` opens.

    Raises:
        ValueError: as `open_checkpoint`, or if the weight files do not contain the configuration's network.

    Example:
        >>> found = describe("tiny")
        >>> found.image_size, found.image_tokens
        (64, (64, 64))
    """
    checkpoint = open_checkpoint(path_or_id)
    config, vae = checkpoint.config, checkpoint.folder / "vae"
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    find_sources(checkpoint, network)
    family = checkpoint.family
    size, drawn = family.picture(config)
    parts = {
        part: (sum(p.numel() for p in network.get_submodule(part).parameters()), meaning)
        for part, meaning in family.parts.items()
    }
    processor = open_processor(checkpoint)
    return Description(
        folder=checkpoint.folder,
        family=family.name,
        descendant=descendant_of(checkpoint),
        layout=checkpoint.layout.name,
        sft_format=processor.text.sft_format,
        dtypes=dict(Counter(str(d).removeprefix("torch.") for d in checkpoint.tensors.dtypes.values())),
        dtype=checkpoint.dtype,
        bytes=sum(file.stat().st_size for file in checkpoint.tensors.files),
        parts=parts,
        image_size=size,
        drawn=drawn,
        image_tokens=(family.seen_tokens(config), family.drawn_tokens(config)),
        context=config.text_config.max_position_embeddings,
        separate_vae=family.separate_vae,
        vae=vae if vae.is_dir() else None,
    )
