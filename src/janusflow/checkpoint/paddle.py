"""PaddleNLP's layout: `model_state.pdparams`, or shards (`model_state-00001-of-00002.pdparams`) and an index of them.
Pickles of arrays, read without running anything from them.

The unpickler knows three names, and they lead to the classes below and not to numpy: a file can build nothing else but
plain containers, strings and numbers. The bytes of large arrays are stepped over and read when they are asked for, so
what a file holds is known without reading it. Names and shapes come out as in the official layout.
"""

from __future__ import annotations

import math
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

FILE = "model_state.pdparams"
DTYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64, "u2": np.uint16, "i4": np.int32, "i8": np.int64}
TENSORS = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}
NAMES = "StructuredToParameterName@@"  # an entry that is no tensor: Paddle's own names
EMBEDDINGS = ("embed_tokens.weight", "gen_embed.weight", "embedding.weight")  # two-dimensional, but no linear layers'
LARGE = 1 << 16  # bytes; what Python's pickler writes by itself, outside its frames
MARK = 16  # bytes that tell a stepped-over array from others


class _Dtype:
    """Stands for `numpy.dtype`: a letter and a size, little-endian."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if name not in DTYPES:
            raise pickle.UnpicklingError(f"an array holds {name!r}")
        self.name = name

    def __setstate__(self, state: Any) -> None:
        if state[1] != "<" or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array's dtype is not a plain little-endian one")


class _Array:
    """Stands for `numpy.ndarray`: where its bytes are, taken only if shape and dtype account for all of them.

    Args:
        stream: that it is read from.
    """

    shape: tuple[int, ...] | None = None

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, self.fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array is malformed")
        if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
            raise pickle.UnpicklingError("an array's shape is none")
        if math.prod(shape) * np.dtype(DTYPES[dtype.name]).itemsize != len(data):
            raise pickle.UnpicklingError("an array's bytes do not fill its shape")
        self.shape, self.letters = shape, dtype.name
        mark = data[:MARK]
        self.place = self._stream.stepped_over.get(mark)
        self._stream.found.add(mark)
        self.content = data if self.place is None else None


class _Stream:
    """A file in which large pieces are stepped over: the unpickler gets memory of the right size that is never filled.

    Attributes:
        stepped_over: from the mark that such a piece begins with to its place in the file.
        found: marks that arrays began with.
    """

    def __init__(self, file: BinaryIO, large: float) -> None:
        self.read, self.readline = file.read, file.readline
        self.stepped_over: dict[bytes, int] = {}
        self.found: set[bytes] = set()
        self._file, self._large = file, large
        self._end = os.fstat(file.fileno()).st_size

    def readinto(self, buffer: memoryview) -> int:
        place, size = self._file.tell(), len(buffer)
        if size < self._large or place + size > self._end:
            return self._file.readinto(buffer)  # type: ignore[attr-defined]
        mark = os.urandom(MARK)
        buffer[:MARK] = mark
        self.stepped_over[mark] = place
        self._file.seek(size, os.SEEK_CUR)
        return size


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: _Stream) -> None:
        super().__init__(stream)
        self._stream = stream

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return self._reconstruct
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights never need")

    def _reconstruct(self, kind: type, shape: tuple[int, ...], letter: bytes) -> _Array:
        """Stands for numpy's function of this name, which makes an empty array for `__setstate__` to fill."""
        if kind is not _Array or shape != (0,):
            raise pickle.UnpicklingError("an array is malformed")
        return _Array(self._stream)


@dataclass(frozen=True)
class Stored:
    """A tensor of a `.pdparams` file that has not been read.

    Attributes:
        file: the file.
        array: where and what it is.
        shape, dtype: in the official layout.
        transposed: whether the file has it the other way round, as it has the weights of linear layers.
    """

    file: Path
    array: _Array
    shape: tuple[int, ...]
    dtype: torch.dtype
    transposed: bool

    def read(self) -> Tensor:
        """The tensor. bfloat16, which Paddle stores as uint16, is that again."""
        array, kind = self.array, np.dtype(DTYPES[self.array.letters])
        assert array.shape is not None
        if array.content is None:
            values = np.fromfile(self.file, kind, count=math.prod(array.shape), offset=array.place or 0)
        else:
            values = np.frombuffer(bytearray(array.content), kind)
        tensor = torch.from_numpy(values.view(np.int16) if kind == np.uint16 else values)
        tensor = tensor.view(torch.bfloat16) if kind == np.uint16 else tensor
        if array.fortran:
            tensor = tensor.reshape(array.shape[::-1]).permute(*reversed(range(len(array.shape))))
        else:
            tensor = tensor.reshape(array.shape)
        return tensor.T if self.transposed else tensor


def is_paddle(file: Path) -> bool:
    """Whether a weight file is one of PaddlePaddle's, whole or a shard."""
    return file.suffix == Path(FILE).suffix


def read_pdparams(file: Path) -> dict[str, Stored]:
    """What a `.pdparams` file holds, under official names.

    Raises:
        ValueError: if the file is damaged, cut off, or holds anything but arrays; nothing of it has been run.
    """
    try:
        with file.open("rb") as stream:
            content, left = _load(stream, LARGE)
            if left:  # a piece that was stepped over is no array's: the file is laid out in another way
                stream.seek(0)
                content, _ = _load(stream, math.inf)
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dictionary of arrays")
        return {_name(key): _stored(file, key, value) for key, value in content.items() if key != NAMES}
    except OSError:
        raise
    except Exception as error:  # MemoryError too: a damaged length asks for any amount
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise ValueError(f"{file} is damaged or not a weights file ({reason}); fetch it again") from error


def _load(file: BinaryIO, large: float) -> tuple[Any, bool]:
    """What is in a file, and whether anything that was stepped over is not accounted for."""
    stream = _Stream(file, large)
    content = _Unpickler(stream).load()
    return content, not stream.stepped_over.keys() <= stream.found


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise pickle.UnpicklingError("an array has no name")
    return name.replace("language_model.llama.", "language_model.model.")


def _stored(file: Path, name: str, value: Any) -> Stored:
    if not isinstance(value, _Array) or value.shape is None:
        raise pickle.UnpicklingError(f"{name} is no array")
    linear = len(value.shape) == 2 and name.endswith(".weight") and not name.endswith(EMBEDDINGS)
    shape = value.shape[::-1] if linear else value.shape
    return Stored(file, value, shape, TENSORS.get(value.letters, torch.bfloat16), linear)
