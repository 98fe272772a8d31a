"""A pipeline's VAE and small decoder: opened when pixels are first needed, moved and saved."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from janusflow.arguments import quoted
from janusflow.building import BUILDING
from janusflow.device import CPU
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.pipelines.adapters import AdaptedPipeline
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.vae import DEFAULT_VAE, PREVIEW_DECODER, LatentCodec, SmallDecoder, check_vae


class LatentPipeline(AdaptedPipeline):
    """A pipeline whose network generates a VAE's latents.

    Args:
        network: the weights.
        processor: tokenizer, templates and picture preprocessing.
        vae: the VAE, or where to find it.
        preview_decoder: a small decoder for the VAE's latents, or where to find it, if there is one.
    """

    network: JanusFlowForConditionalGeneration
    _parts: ClassVar[tuple[str, ...]] = ("vae", PREVIEW_DECODER)

    def __init__(
        self,
        network: JanusFlowForConditionalGeneration,
        processor: JanusFlowProcessor,
        vae: str | Path | LatentCodec,
        preview_decoder: Path | SmallDecoder | None = None,
    ) -> None:
        super().__init__(network, processor)
        self.vae, self.preview_decoder = vae, preview_decoder
        self._released: LatentCodec | None = None  # the opened default VAE, which is not saved with the model
        self.give_latents()

    def give_latents(self) -> None:
        """Let a network that understands latents encode pictures with the VAE."""
        if self.network.config.understanding_encoder != "siglip":
            self.network.encode_pixels = lambda pixels: self.codec.encode(pixels)

    @classmethod
    def assemble(
        cls,
        network: JanusFlowForConditionalGeneration,
        processor: JanusFlowProcessor,
        *,
        folder: Path | None = None,
        vae: str | Path | None = None,
    ) -> Self:
        """See `Pipeline.assemble`; the VAE defaults to the one in the folder, or else to the released one."""
        own = None if folder is None else folder / "vae"
        small = None if folder is None or vae is not None else folder / PREVIEW_DECODER
        chosen = vae or (own if own is not None and own.is_dir() else DEFAULT_VAE)
        return cls(network, processor, chosen, small if small is not None and small.is_dir() else None)

    def _write_parts(self, folder: Path) -> None:
        super()._write_parts(folder)
        if self.vae is not self._released and str(self.vae) != DEFAULT_VAE:
            self.codec.save_pretrained(folder / "vae")
        if self.preview_decoder is not None:
            self.small_decoder.save_pretrained(folder / PREVIEW_DECODER)

    def to(self, device: str | torch.device) -> Self:
        """Move everything to a device and keep it there."""
        super().to(device)
        if isinstance(self.vae, LatentCodec):
            self.vae.vae.to(self.device)
        if isinstance(self.preview_decoder, SmallDecoder):
            self.preview_decoder.module.to(self.device)
        return self

    def _weights(self) -> list[nn.Module]:
        small = [] if self.preview_decoder is None else [self.small_decoder.module]
        return [self.network, self.codec.vae, *small]

    def _part(self, part: str) -> nn.Module:
        if part == "small":
            return self.small_decoder.module
        return self.network if part == "network" else self.codec.vae

    @property
    def codec(self) -> LatentCodec:
        """The VAE, opened on first use.

        Raises:
            ValueError: if it cannot be opened, or does not fit the network's latents.
        """
        if not isinstance(self.vae, LatentCodec):
            with BUILDING:
                if not isinstance(self.vae, LatentCodec):  # another thread may have opened it meanwhile
                    source, codec = str(self.vae), self._open_codec(self.vae)
                    self._released = codec if source == DEFAULT_VAE else None
                    self.vae = codec
        return self.vae

    @property
    def small_decoder(self) -> SmallDecoder:
        """The small decoder, opened on first use.

        Raises:
            ValueError: if the model has none, or it cannot be opened or does not fit the network's latents.
        """
        if self.preview_decoder is None:
            name = self.opened.get("name")
            raise ValueError(
                f"decoder is 'small', but model {quoted(name)} has no {PREVIEW_DECODER}; use decoder='vae'"
            )
        if not isinstance(self.preview_decoder, SmallDecoder):
            with BUILDING:
                if not isinstance(self.preview_decoder, SmallDecoder):  # another thread may have opened it meanwhile
                    self.preview_decoder = self._open_small(self.preview_decoder)
        return self.preview_decoder

    def decode(self, latents: Tensor, decoder: str = "vae") -> Tensor:
        """Decode latents (N, C, H, W) to pixels (N, 3, height, width) in [-1, 1].

        Args:
            latents: x_1, or for a preview the expected x_1.
            decoder: "vae" or "small"; "preview" is the small decoder if the model has one, and the VAE if not.

        Raises:
            ValueError: if the decoder is missing or damaged.
        """
        small = decoder == "small" or (decoder == "preview" and self.preview_decoder is not None)
        return self.small_decoder.decode(latents) if small else self.codec.decode(latents)

    def _open_codec(self, source: str | Path) -> LatentCodec:
        codec = LatentCodec.from_pretrained(source, dtype=self.network.dtype, device=self._waiting_place())
        check_vae(codec, source, self.network.config)
        return codec

    def _open_small(self, folder: Path) -> SmallDecoder:
        small = SmallDecoder.from_pretrained(folder, dtype=self.network.dtype, device=self._waiting_place())
        check_vae(small, folder, self.network.config)
        return small

    def _waiting_place(self) -> torch.device:
        return self.network.device if self._computes_on is None else CPU
