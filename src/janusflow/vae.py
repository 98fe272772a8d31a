"""Pixels to scaled latents and back: the frozen VAE outside the network.

Shapes: pixels (B, 3, H, W) in [-1, 1], latents (B, C, H/f, W/f) scaled to about unit deviation, f = 8 for the SDXL-VAE.
diffusers' autoencoders take a second to import, so they are imported when a VAE is opened.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Interval, Len
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from janusflow.arguments import quoted, shortened
from janusflow.building import BUILDING, finite, named, open_complete
from janusflow.config import JanusFlowConfig
from janusflow.device import CPU, execution_device
from janusflow.files import checked, read_json
from janusflow.offline import cached_if_unreachable, first_line

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderTiny

DEFAULT_VAE = "stabilityai/sdxl-vae"
WIDE = 32  # least width of a VAE's first level at which a CPU decodes faster in channels-last memory (docs/log.md)
Size: TypeAlias = Annotated[int, Interval(ge=1, le=2**13)]
WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name for a model's weights
DECODER = "decoder."  # prefix of the names of a small decoder's weights
PREVIEW_DECODER = "preview_decoder"  # folder of a model's small decoder


class LatentCodec:
    """A diffusers `AutoencoderKL` with its scaling.

    Args:
        vae: the autoencoder; it is put into eval mode and frozen.

    Raises:
        ValueError: if its weights are float16: activations of the SDXL-VAE overflow in float16.
    """

    makes: ClassVar = "latents"

    def __init__(self, vae: AutoencoderKL) -> None:
        check_dtype(vae.dtype)
        self.vae = vae.eval().requires_grad_(False)

    @property
    def weights(self) -> AutoencoderKL:
        """The weights that latents depend on."""
        return self.vae

    @property
    def settings(self) -> tuple[Any, ...]:
        """The settings that latents depend on."""
        return self.vae.config.scaling_factor, self.vae.config.shift_factor

    @classmethod
    def from_pretrained(cls, source: str | Path, *, dtype: torch.dtype, device: torch.device) -> LatentCodec:
        """Open a folder in diffusers' layout (itself, or its `vae` subfolder), or a hub id.

        Raises:
            ValueError: if there is no VAE, or the dtype is float16.
        """
        check_dtype(dtype)
        with BUILDING, torch.inference_mode(False):  # so that nothing is imported under another thread's patches
            from diffusers import AutoencoderKL
            from diffusers.utils import is_accelerate_available
        path = Path(os.path.expanduser(source))
        if (path / "vae").is_dir():
            path = path / "vae"
        if path.is_dir():
            _check_files(path)
        try:
            with torch.inference_mode(False), cached_if_unreachable(path) as why:  # else it cannot be cast or moved
                place = str(path) if path.is_dir() else str(source)
                sparing = is_accelerate_available()  # diffusers prints a warning if it is not
                vae = open_complete(AutoencoderKL, place, surplus=False, torch_dtype=dtype, low_cpu_mem_usage=sparing)
        except Exception as error:  # from the hub, the HTTP library or the system
            if (path / "config.json").is_file():
                raise ValueError(f"the VAE in {path} is damaged: {shortened(first_line(error))}") from error
            raise ValueError(
                f"vae is {quoted(str(source))}, which is neither an AutoencoderKL folder here nor in the hub's cache, "
                f"and {why or shortened(first_line(error))}; pass vae=FOLDER (--vae on the command line), or "
                "output_type='latent' to do without"
            ) from error
        codec = cls(vae.to(device))
        if device == CPU and dtype == torch.float32 and vae.config.block_out_channels[0] >= WIDE:
            vae.decoder.to(memory_format=torch.channels_last)  # same pixels up to rounding
        return codec

    def save_pretrained(self, folder: str | Path) -> None:
        """Write diffusers' layout, without the path that the VAE was opened from."""
        self.vae.save_pretrained(folder)
        file = Path(folder) / "config.json"
        config = read_json(file)
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return int(self.vae.config.latent_channels)

    @property
    def downscale(self) -> int:
        """Pixels per latent cell, each way."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def device(self) -> torch.device:
        """Device that the VAE computes on."""
        return execution_device(self.vae)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the scaled mean of the posterior in float32. Autocast is disabled: float16 would overflow."""
        with torch.autocast(self.device.type, enabled=False):
            posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        shift = self.vae.config.shift_factor or 0.0
        return (posterior.mean.float() - shift) * self.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Return float32 pixels clipped to [-1, 1]; without autocast, as in `encode`."""
        unscaled = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        with torch.autocast(self.device.type, enabled=False):
            return self.vae.decode(unscaled.to(self.device, self.vae.dtype)).sample.float().clip(-1, 1)


@dataclass(frozen=True)
class SmallDecoderConfig:
    """Sizes of a small decoder, with the names of diffusers' `AutoencoderTiny`.

    Attributes:
        latent_channels: channels of the latent.
        decoder_block_out_channels: width of each level; all are equal. Each level but the last doubles the sides.
        num_decoder_blocks: residual blocks of each level.
        scaling_factor, shift_factor: latents are divided by the first, then the second is added.
        act_fn, upsample_fn: activation and upsampling of the layers.
    """

    latent_channels: Size = 4
    decoder_block_out_channels: Annotated[list[Size], Len(1, 8)] = field(default_factory=lambda: [64] * 4)
    num_decoder_blocks: Annotated[list[Annotated[int, Interval(ge=0, le=16)]], Len(1, 8)] = field(
        default_factory=lambda: [3, 3, 3, 1]
    )
    scaling_factor: Annotated[float, Interval(ge=1e-6, le=1e6)] = 1.0
    shift_factor: Annotated[float, Interval(ge=-1e6, le=1e6)] = 0.0
    act_fn: Literal["relu", "silu", "gelu"] = "relu"
    upsample_fn: Literal["nearest"] = "nearest"

    def __post_init__(self) -> None:
        levels, blocks = len(self.decoder_block_out_channels), len(self.num_decoder_blocks)
        if levels != blocks:
            raise ValueError(f"decoder_block_out_channels has {levels} levels, but num_decoder_blocks has {blocks}")

    def build(self) -> DecoderTiny:
        """Build the decoder with random weights."""
        with BUILDING:
            from diffusers.models.autoencoders.vae import DecoderTiny

            widths, blocks = tuple(self.decoder_block_out_channels), tuple(self.num_decoder_blocks)
            return DecoderTiny(self.latent_channels, 3, blocks, widths, 2, self.act_fn, self.upsample_fn)


class SmallDecoder:
    """The decoder of diffusers' `AutoencoderTiny` (TAESD): a few convolutions that approximate the VAE's decoder.

    An encoder in the same file is ignored.

    Args:
        module: the decoder; it is put into eval mode and frozen.
        config: its sizes.
    """

    def __init__(self, module: DecoderTiny, config: SmallDecoderConfig) -> None:
        self.module, self.config = module.eval().requires_grad_(False), config

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype, device: torch.device) -> SmallDecoder:
        """Open a folder in the layout of diffusers' `AutoencoderTiny`.

        Raises:
            ValueError: if it is damaged; the message is one sentence.
        """
        file = Path(folder) / "config.json"
        raw = checked(dict[str, Any], read_json(file), file)
        names = {entry.name for entry in fields(SmallDecoderConfig)}
        config = checked(SmallDecoderConfig, {name: value for name, value in raw.items() if name in names}, file)
        try:
            stored = load_file(Path(folder) / WEIGHTS)
            weights = {name.removeprefix(DECODER): value for name, value in stored.items() if name.startswith(DECODER)}
            with torch.inference_mode(False):
                module = config.build()
                module.load_state_dict(weights)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ValueError(f"the small decoder in {folder} is damaged: {shortened(first_line(error))}") from error
        if broken := [name for name, value in weights.items() if not finite(value)]:
            raise ValueError(
                f"the small decoder in {folder} has values that are not finite in {named(broken, 'tensors')}"
            )
        return cls(module.to(device, dtype), config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the layout that `from_pretrained` opens."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        weights = {DECODER + name: value.contiguous() for name, value in self.module.state_dict().items()}
        save_file(weights, Path(folder) / WEIGHTS, metadata={"format": "pt"})
        config = {"_class_name": "AutoencoderTiny", **asdict(self.config)}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return self.config.latent_channels

    @property
    def downscale(self) -> int:
        """Pixels per latent cell, each way."""
        return int(2 ** (len(self.config.num_decoder_blocks) - 1))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, C, H, W) to float32 pixels clipped to [-1, 1]; without autocast."""
        first = next(self.module.parameters())
        unscaled = latents / self.config.scaling_factor + self.config.shift_factor
        with torch.autocast(first.device.type, enabled=False):
            pixels: Tensor = self.module(unscaled.to(first.device, first.dtype))
        return pixels.float().clip(-1, 1)


@dataclass(frozen=True)
class _Config:
    """Fields of an `AutoencoderKL`'s `config.json` that are checked before it is built; the defaults are diffusers'."""

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: Size = 4
    block_out_channels: Annotated[list[Size], Len(1, 8)] = field(default_factory=lambda: [64])
    layers_per_block: Annotated[int, Interval(ge=1, le=16)] = 1
    norm_num_groups: Size = 32
    down_block_types: Annotated[list[str], Len(1, 8)] = field(default_factory=list)
    up_block_types: Annotated[list[str], Len(1, 8)] = field(default_factory=list)
    scaling_factor: Annotated[float, Interval(ge=1e-6, le=1e6)] = 0.18215
    shift_factor: Annotated[float, Interval(ge=-1e6, le=1e6)] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


def _check_files(folder: Path) -> None:
    """Compare the sizes in a VAE's `config.json` with its weights, which must be floating-point numbers.

    Raises:
        ValueError: if they do not fit; the message is one sentence that names the file or the folder.
    """
    file = folder / "config.json"
    if not file.is_file():
        return  # diffusers raises its own error
    raw = checked(dict[str, Any], read_json(file), file)
    names = {entry.name for entry in fields(_Config)}
    checked(_Config, {name: value for name, value in raw.items() if name in names}, file)
    weights = sorted(folder.glob(f"{Path(WEIGHTS).stem}*.safetensors"))
    stored = 0
    for part in weights:
        try:
            with safe_open(part, framework="pt") as header:
                slices = {name: header.get_slice(name) for name in header.keys()}  # noqa: SIM118 (no mapping)
                stored += sum(math.prod(piece.get_shape()) for piece in slices.values())
                integers = [name for name, piece in slices.items() if "F" not in piece.get_dtype()]
        except (SafetensorError, OSError) as error:
            reason = shortened(first_line(error))
            raise ValueError(f"the VAE in {folder} is damaged: {part.name} cannot be read ({reason})") from error
        if integers:
            what = f"{named(integers, 'tensors')} of {part.name} do not hold floating-point numbers"
            raise ValueError(f"the VAE in {folder} is damaged: {what}")
    if not weights:
        return
    try:
        from diffusers import AutoencoderKL

        with BUILDING, torch.device("meta"):
            wanted = sum(value.numel() for value in AutoencoderKL.from_config(raw).parameters())
    except Exception as error:  # of many kinds: names of blocks, and sizes that do not fit together
        raise ValueError(f"{file} describes no VAE that can be built: {shortened(first_line(error))}") from error
    if wanted > stored:
        raise ValueError(f"{file} is damaged: it describes {wanted} weights, and the weight files hold {stored}")


def vae_weights(source: str | Path) -> list[Path]:
    """Return the weight files of a VAE in a folder, or fetch them from the hub; empty if it cannot be reached."""
    folder = Path(os.path.expanduser(source)).absolute()
    if folder.is_dir():
        return sorted(folder.rglob("*.safetensors"))
    try:
        with cached_if_unreachable(source):
            return [Path(hf_hub_download(str(source), WEIGHTS))]
    except Exception:  # from the hub, the HTTP library or the system; opening the VAE reports more
        return []


def check_vae(codec: LatentCodec | SmallDecoder, source: object, config: JanusFlowConfig) -> None:
    """Refuse a VAE or small decoder whose latents do not match those of a network.

    Raises:
        ValueError: if they differ; the message names both.
    """
    name = "vae" if isinstance(codec, LatentCodec) else "small decoder"
    if (codec.channels, codec.downscale) != (config.latent_channels, config.latent_downscale):
        raise ValueError(
            f"{name} {quoted(str(source))} has {codec.channels} channels and factor {codec.downscale}; the network's "
            f"latents have {config.latent_channels} channels and factor {config.latent_downscale}"
        )


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse float16.

    Raises:
        ValueError: if it is float16; the message says why.
    """
    if dtype == torch.float16:
        raise ValueError("dtype is float16, in which the SDXL-VAE overflows to black pictures; use bfloat16 or float32")
