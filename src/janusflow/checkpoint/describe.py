"""What a checkpoint is, told from its configuration and the headers of its files; no weight is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from janusflow.checkpoint.load import empty_network, find_sources, open_checkpoint
from janusflow.checkpoint.special_tokens import open_processor
from janusflow.model.janus import JanusForConditionalGeneration

JANUS_PARTS = {
    "model.vision_model": "f_enc: SigLIP tower",
    "model.aligner": "features to LLM embeddings",
    "model.generation_embeddings": "one vector per code of a picture",
    "model.generation_aligner": "codes to LLM embeddings",
    "model.language_model": "LLM",
    "lm_head": "LLM head",
    "model.generation_head": "LLM states to codes",
    "model.vqmodel": "VQ codec: codes to pixels and back",
}
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
        family: "JanusFlow" or "Janus" (which Janus-Pro is too).
        layout: "janusflow", "official", "paddle" or "transformers".
        sft_format: name of the chat template.
        dtypes: dtype of the stored weights to number of tensors.
        dtype: in which they are opened unless another is asked for.
        bytes: size of the weight files.
        parts: name of each part of the network to its number of parameters and what it is.
        image_size: side of the pictures that it draws, in pixels.
        drawn: what a picture is drawn as, in words.
        image_tokens: (understanding, generation) tokens per picture.
        context: positions of the LLM.
        vae: the folder of the VAE beside the weights, or None if it has to come from elsewhere (JanusFlow) or there is
            none (Janus, whose codec is a part of the network).
    """

    folder: Path
    family: str
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
    vae: Path | None


def describe(path_or_id: str | Path) -> Description:
    """Describes what `open_checkpoint` opens.

    Raises:
        ValueError: as `open_checkpoint`, or if the weight files do not hold the configuration's network.
    """
    checkpoint = open_checkpoint(path_or_id)
    config, vae = checkpoint.config, checkpoint.folder / "vae"
    network = empty_network(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    find_sources(checkpoint, network)
    if isinstance(network, JanusForConditionalGeneration):
        known, tokens = JANUS_PARTS, network.image_tokens
        size, drawn = network.drawn_size, f"{tokens} codes out of {network.config.vq_config.num_embeddings:,}"
    else:
        sizes = network.config
        known, tokens, size = PARTS, sizes.num_generation_tokens, sizes.image_size
        drawn = f"latent {sizes.latent_channels}x{sizes.latent_size}x{sizes.latent_size}"
    parts = {
        part: (sum(p.numel() for p in network.get_submodule(part).parameters()), meaning)
        for part, meaning in known.items()
    }
    processor = open_processor(checkpoint)
    return Description(
        folder=checkpoint.folder,
        family=checkpoint.family,
        layout=checkpoint.layout,
        sft_format=processor.text.sft_format,
        dtypes=dict(Counter(str(d).removeprefix("torch.") for d in checkpoint.tensors.dtypes.values())),
        dtype=checkpoint.dtype,
        bytes=sum(file.stat().st_size for file in checkpoint.tensors.files),
        parts=parts,
        image_size=size,
        drawn=drawn,
        image_tokens=(checkpoint.image_tokens, tokens),
        context=config.text_config.max_position_embeddings,
        vae=vae if vae.is_dir() else None,
    )
