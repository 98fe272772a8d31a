"""What a checkpoint is, told from its configuration and the headers of its files; no weight is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from janusflow.checkpoint.load import empty_network, open_checkpoint

PARTS = {
    "understanding_encoder": "f_enc: SigLIP tower and aligner",
    "generation_encoder": "g_enc: latent and time to LLM embeddings",
    "language_model": "LLM",
    "lm_head": "LLM head",
    "generation_decoder": "g_dec: LLM states to velocity",
}


@dataclass(frozen=True)
class Description:
    """One checkpoint at a glance.

    Attributes:
        folder: where it lies.
        layout: "janusflow" or "official".
        dtypes: dtype of the stored weights to number of tensors.
        bytes: size of the weight files.
        parts: name of each part of the network to its number of parameters.
        image_size: side of the pictures that it draws, in pixels.
        latent: (channels, side) of their latent.
        image_tokens: (understanding, generation) tokens per picture.
        context: positions of the LLM.
        vae: the folder of the VAE beside the weights, or None if it has to come from elsewhere.
    """

    folder: Path
    layout: str
    dtypes: dict[str, int]
    bytes: int
    parts: dict[str, int]
    image_size: int
    latent: tuple[int, int]
    image_tokens: tuple[int, int]
    context: int
    vae: Path | None


def describe(path_or_id: str | Path) -> Description:
    """Describes what `open_checkpoint` opens.

    Raises:
        ValueError: as `open_checkpoint`.
    """
    checkpoint = open_checkpoint(path_or_id)
    config = checkpoint.config
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    vae = checkpoint.folder / "vae"
    return Description(
        folder=checkpoint.folder,
        layout=checkpoint.layout,
        dtypes=dict(Counter(str(d).removeprefix("torch.") for d in checkpoint.tensors.dtypes.values())),
        bytes=sum(file.stat().st_size for file in checkpoint.tensors.files),
        parts={part: sum(p.numel() for p in getattr(network, part).parameters()) for part in PARTS},
        image_size=config.image_size,
        latent=(config.latent_channels, config.latent_size),
        image_tokens=(config.num_understanding_tokens, config.num_generation_tokens),
        context=config.text_config.max_position_embeddings,
        vae=vae if vae.is_dir() else None,
    )
