"""A cache on disk for tensors computed from pictures: latents of the VAE, features of a frozen f_enc."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janusflow.files import temporary_path

NAME = "value"


class PictureCache:
    """One tensor per picture, computed once: `folder/<weights of maker>/<pixels>.safetensors`, both as hashes.

    Another maker or other pixels (another crop or size) therefore never read an old value. Several processes may share
    the folder: files are complete or absent, and values that cannot be read are computed again. A cached value was
    computed in another batch, so it equals a fresh value up to rounding.

    Args:
        make: function from (N, 3, H, W) pixels to (N, ...) values, computed by `maker`.
        settings: other settings that determine the values, such as the latents' scaling.
    """

    def __init__(
        self, folder: Path, maker: nn.Module, make: Callable[[Tensor], Tensor], *, settings: Sequence[object] = ()
    ) -> None:
        self.folder, self.make = folder / _fingerprint(maker, settings), make
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the values of pictures, (N, 3, H, W) to (N, ...); missing ones are computed in one batch and kept."""
        files = [self._file(picture) for picture in pixels.cpu()]
        found = [_read(file) for file in files]
        missing = [index for index, value in enumerate(found) if value is None]
        if missing:
            for index, value in zip(missing, self.make(pixels[missing]).detach().cpu(), strict=True):
                found[index] = value
                _write(files[index], value)
        return torch.stack([value for value in found if value is not None]).to(pixels.device)

    def _file(self, picture: Tensor) -> Path:
        name = hashlib.sha256(picture.contiguous().numpy().tobytes()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"


def _fingerprint(module: nn.Module, settings: Sequence[object]) -> str:
    digest = hashlib.sha256(repr(list(settings)).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)[NAME]
    except (OSError, SafetensorError, KeyError):
        return None


def _write(file: Path, value: Tensor) -> None:
    file.parent.mkdir(exist_ok=True)
    try:
        with temporary_path(file, tidy=False) as temporary:
            save_file({NAME: value.contiguous()}, temporary)
            temporary.replace(file)
    except (OSError, SafetensorError) as error:  # SafetensorError (a full disk) is not an OSError
        raise OSError(f"the cache {file} could not be written ({error}); the last checkpoint is intact") from error
