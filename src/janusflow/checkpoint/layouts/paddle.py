"""Read PaddleNLP's layout: `model_state.pdparams`, or shards (`model_state-00001-of-00002.pdparams`) with an index.

The files are pickles of arrays, and no code in them is run: the unpickler only knows the instructions that weights
need, so a file can build plain containers, strings, numbers and the arrays below. The bytes of large arrays are skipped
and read on demand, so that listing the content of a file needs little memory. Names and shapes are those of the
official layout.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from janusflow.arguments import shortened
from janusflow.families.layout import Layout
from janusflow.offline import first_line

FILE = "model_state.pdparams"
DTYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64, "u2": np.uint16, "i4": np.int32, "i8": np.int64}
TENSORS = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}
NAMES = "StructuredToParameterName@@"  # an entry with Paddle's own names, not a tensor
EMBEDDINGS = ("embed_tokens.weight", "gen_embed.weight", "embedding.weight")  # two-dimensional, but not linear layers
LARGE = 1 << 16  # bytes from which on a piece is skipped
MOST_SIDES = 32  # maximum dimensions of an array, as in older versions of numpy


@dataclass(frozen=True)
class _Skipped:
    """Bytes of a file that were skipped: where they begin, and how many there are."""

    place: int
    size: int

    def __len__(self) -> int:
        return self.size


class _Stream:
    """A file read in pieces: large pieces are skipped, and a piece that reaches past the end is an error."""

    def __init__(self, file: BinaryIO) -> None:
        self.readline, self._file = file.readline, file
        self._end = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> Any:
        place = self._file.tell()
        if size > self._end - place:
            raise pickle.UnpicklingError(f"{size} bytes are announced where {self._end - place} are left")
        if size < LARGE:
            return self._file.read(size)
        self._file.seek(size, os.SEEK_CUR)
        return _Skipped(place, size)


class _Dtype:
    """A plain little-endian `numpy.dtype`."""

    def __init__(self, name: Any, *others: Any) -> None:
        if name not in DTYPES:
            raise pickle.UnpicklingError(f"an array holds {name!r:.100}")
        self.name: str = name

    def __setstate__(self, state: Any) -> None:
        if state[1] != "<" or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array's dtype is not a plain little-endian one")


class _Array:
    """A `numpy.ndarray`: where its bytes are, accepted only if shape and dtype account for all of them."""

    shape: tuple[int, ...] | None = None
    place: int | None = None
    content: bytes | None = None

    def __init__(self, *arguments: Any) -> None:
        if arguments[:2] != (NDARRAY, (0,)):
            raise pickle.UnpicklingError("an array is malformed")

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, self.fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, _Skipped)):
            raise pickle.UnpicklingError("an array is malformed")
        sides = shape if isinstance(shape, tuple) and len(shape) <= MOST_SIDES else (None,)
        if any(type(side) is not int or not 0 <= side <= sys.maxsize for side in sides):
            raise pickle.UnpicklingError("an array's shape is invalid")
        if math.prod(shape) * np.dtype(DTYPES[dtype.name]).itemsize != len(data):
            raise pickle.UnpicklingError("an array's bytes do not match its shape")
        self.shape, self.letters = shape, dtype.name
        if isinstance(data, _Skipped):
            self.place = data.place
        else:
            self.content = data


NDARRAY = "numpy.ndarray"  # stands for the class, which is not imported
ADMITTED = {  # what a pickle may name, and what it gets instead
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}
NEEDED = (
    *(
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
    ),
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("DICT", "EMPTY_DICT", "SETITEM", "SETITEMS"),
)


class _Instructions(dict[int, Any]):
    """The instructions of a pickle that weights need, by code."""

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"it contains the instruction {chr(code)!r}, which weights do not need")


class _Unpickler(pickle._Unpickler):  # the one in C reserves memory for any memo index
    """Builds plain containers, strings, numbers and arrays; other instructions and names are errors."""

    dispatch = _Instructions(
        {code: pickle._Unpickler.dispatch[code] for (code,) in (vars(pickle)[name] for name in NEEDED)}
    )
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # frames are read like the rest of the file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module!s:.100}.{name!s:.100}, which weights do not need")
        return ADMITTED[module, name]


@dataclass(frozen=True)
class Stored:
    """A tensor of a `.pdparams` file that has not been read.

    Attributes:
        file: the file.
        array: where and what it is.
        shape, dtype: in the official layout.
        transposed: whether the file stores the transpose, as it does for linear layers.
    """

    file: Path
    array: _Array
    shape: tuple[int, ...]
    dtype: torch.dtype
    transposed: bool

    def read(self) -> Tensor:
        """Read the tensor; Paddle stores bfloat16 as uint16."""
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
    """Return whether a weight file is one of PaddlePaddle's, whole or a shard."""
    return file.suffix == Path(FILE).suffix


def paddle_layout(official: Layout) -> Layout:
    """Return Paddle's layout of a family: the official one in other files; it cannot be written."""
    return replace(
        official,
        name="paddle",
        detect=lambda raw, files: any(map(is_paddle, files[:1])) and official.detect(raw, files),
        write=None,
    )


def read_pdparams(file: Path) -> dict[str, Stored]:
    """List the content of a `.pdparams` file under official names.

    Raises:
        ValueError: if the file is damaged, cut off, or contains anything but arrays. Nothing in it is run.
    """
    try:
        with file.open("rb") as stream:
            content = _Unpickler(_Stream(stream)).load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it is not a dictionary of arrays")
        return {_name(key): _stored(file, key, value) for key, value in content.items() if key != NAMES}
    except OSError:
        raise
    except Exception as error:  # any instruction may lack what it needs
        raise ValueError(
            f"{file} is damaged or not a weights file ({shortened(first_line(error))}); download it again"
        ) from error


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise pickle.UnpicklingError("an array has no name")
    return name.replace("language_model.llama.", "language_model.model.")


def _stored(file: Path, name: str, value: Any) -> Stored:
    if not isinstance(value, _Array) or value.shape is None:
        raise pickle.UnpicklingError(f"{shortened(name)} is not an array")
    linear = len(value.shape) == 2 and name.endswith(".weight") and not name.endswith(EMBEDDINGS)
    shape = value.shape[::-1] if linear else value.shape
    return Stored(file, value, shape, TENSORS.get(value.letters, torch.bfloat16), linear)
