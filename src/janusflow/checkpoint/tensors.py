"""Read the tensors of a checkpoint folder one at a time, in any file format.

The formats are `model.safetensors`, `pytorch_model.bin` (with `weights_only=True`) and PaddleNLP's
`model_state.pdparams`, each as one file or as shards with an index (`model.safetensors.index.json`). Nothing here runs
code from a file.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Parameter

from janusflow.arguments import shortened
from janusflow.checkpoint.layouts import paddle
from janusflow.folders import read_json
from janusflow.offline import first_line

INDEX = ".index.json"
WEIGHTS = (  # the first that exists is used: pickles may be older files of the same model
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    paddle.FILE,
    f"{paddle.FILE}{INDEX}",
)
EXTRAS = "official_extras.safetensors"  # in a converted Janus: official tensors that its network does not use
SHARED = 2  # how often a pickle may use the same bytes: tied embeddings are stored once
REMAP_BYTES = 256 * 2**20  # mapped pages count as memory of the process: files are mapped again after this many bytes


class TensorFiles:
    """The names, shapes and dtypes of all tensors in a folder; tensors are read one at a time.

    Raises:
        ValueError: if there are no weights, a shard is missing, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _weight_files(folder) + [file for file in [folder / EXTRAS] if file.is_file()]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._home: dict[str, Path] = {}
        self._paddle: dict[str, paddle.Stored] = {}
        self._mapped: tuple[Path, dict[str, Tensor]] | None = None
        self._mapped_read = 0
        for file in self.files:
            self._read_header(file)
        held = sum(math.prod(shape) * self.dtypes[name].itemsize for name, shape in self.shapes.items())
        stored = sum(file.stat().st_size for file in self.files)
        if held > SHARED * stored:
            raise ValueError(f"{self.files[0]} is damaged: its tensors have {held} bytes, its files have {stored}")

    def __contains__(self, name: object) -> bool:
        return name in self._home

    def __iter__(self) -> Iterator[str]:
        return iter(self._home)

    def __len__(self) -> int:
        return len(self._home)

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of the given names in that order; each is valid until the next one is read."""
        done = 0
        with ExitStack() as stack:
            opened: dict[Path, safe_open] = {}
            for name in names:
                file = self._home[name]
                if file.suffix != ".safetensors":
                    yield name, self._from_pickle(file, name)
                    continue
                if done > REMAP_BYTES:
                    stack.close()
                    opened.clear()
                    done = 0
                if file not in opened:
                    opened[file] = stack.enter_context(safe_open(file, framework="pt"))
                tensor = opened[file].get_tensor(name)
                done += tensor.nbytes
                yield name, tensor

    def _read_header(self, file: Path) -> None:
        if paddle.is_paddle(file):
            arrays = paddle.read_pdparams(file)
            self._paddle |= arrays
            for name, array in arrays.items():
                self._add(file, name, array.shape, array.dtype)
            return
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as header:
                    for name in header.keys():  # noqa: SIM118 (safe_open is no mapping)
                        part = header.get_slice(name)
                        self._add(file, name, tuple(part.get_shape()), DTYPES[part.get_dtype()])
            else:
                for name, tensor in _map_pickle(file).items():
                    plain = type(tensor) in (Tensor, Parameter) and tensor.layout is torch.strided
                    if not plain or not isinstance(name, str):
                        raise TypeError(f"{name!r:.100} is not a plain tensor")
                    self._add(file, name, tuple(tensor.shape), tensor.dtype)
        except OSError:
            raise
        except Exception as error:  # PyTorch's loader raises many kinds of errors for damaged files
            if "Unsupported global" in str(error):  # PyTorch's message would advise running the file
                raise ValueError(f"{file} contains objects that are not tensors, which are not loaded") from error
            advice = isinstance(error, pickle.UnpicklingError)  # PyTorch's message is long
            reason = "" if advice else f" ({shortened(first_line(error))})"
            raise ValueError(f"{file} is damaged or not a weights file{reason}; download it again") from error

    def _from_pickle(self, file: Path, name: str) -> Tensor:
        """Read one tensor of a pickle: Paddle's file is read, PyTorch's is mapped, and again after `REMAP_BYTES`."""
        if paddle.is_paddle(file):
            return self._paddle[name].read()
        far = self._mapped_read > REMAP_BYTES and is_zipfile(file)  # others are in memory anyway
        if self._mapped is None or self._mapped[0] != file or far:
            self._mapped = None  # released before the next is mapped
            self._mapped, self._mapped_read = (file, _map_pickle(file)), 0
        tensor = self._mapped[1][name]
        self._mapped_read += tensor.nbytes
        return tensor

    def _add(self, file: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._home[name], self.shapes[name], self.dtypes[name] = file, shape, dtype


def _map_pickle(file: Path) -> dict[str, Tensor]:
    """Map a PyTorch file; files in the format from before 2020 can only be read as a whole."""
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    return tensors


DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _weight_files(folder: Path) -> list[Path]:
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} contains no weights: expected one of {', '.join(WEIGHTS)}")
    if not file.name.endswith(INDEX):
        return [file]
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{file} is damaged: it has no weight_map")
    whole = file.name.removesuffix(INDEX)
    outside = [shard for shard in weight_map.values() if not _is_inside(shard, whole)]
    if outside or not weight_map:
        what = f"it lists {outside[0]!r:.80}" if outside else "its weight_map is empty"
        raise ValueError(f"{file} is damaged: {what}; expected names of weight files in its folder")
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        names = shortened(", ".join(missing[:3]))
        raise ValueError(f"{folder} lacks {len(missing)} of {len(shards)} weight files: {names}; download it again")
    return [folder / shard for shard in shards]


def _is_inside(shard: object, whole: str) -> bool:
    """Return whether an entry of an index names a file of the same kind, in the folder or below it."""
    if not isinstance(shard, str) or "\\" in shard or not shard.endswith(PurePath(whole).suffix):
        return False
    place = PurePath(shard)
    return not place.is_absolute() and not place.drive and ".." not in place.parts
