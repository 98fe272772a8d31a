"""Read PaddleNLP's layout: `model_state.pdparams`, or shards (`model_state-00001-of-00002.pdparams`) with an index.

The files are pickles of arrays, and nothing in them is run. Python's own parser splits a file into instructions, of
which only those that weights need are executed here: a file can build plain containers, strings, numbers and the arrays
below, and call nothing. The bytes of large arrays are skipped and read on demand, so that listing the content of a file
needs little memory. Names and shapes are those of the official layout.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from janusflow.arguments import shortened
from janusflow.families.layout import Layout
from janusflow.offline import first_line

T = TypeVar("T")

FILE = "model_state.pdparams"
DTYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64, "u2": np.uint16, "i4": np.int32, "i8": np.int64}
TENSORS = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}
NAMES = "StructuredToParameterName@@"  # an entry with Paddle's own names, not a tensor
EMBEDDINGS = ("embed_tokens.weight", "gen_embed.weight", "embedding.weight")  # two-dimensional, but not linear layers
LARGE = 1 << 16  # bytes from which a piece is skipped
MOST_SIDES = 32  # of an array, as in older versions of numpy


class _Skipped:
    """Bytes of a file that were skipped.

    Args:
        place: where they begin in the file.
        size: how many there are.
    """

    def __init__(self, place: int, size: int) -> None:
        self.place, self._size = place, size

    def __len__(self) -> int:
        return self._size


class _Stream:
    """A file read in pieces: large pieces are skipped, and a piece that reaches past the end is an error."""

    def __init__(self, file: BinaryIO) -> None:
        self.readline, self.tell = file.readline, file.tell
        self._file = file
        self._end = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes | _Skipped:
        if size < LARGE:
            return self._file.read(size)
        place = self._file.tell()
        if size > self._end - place:
            raise pickle.UnpicklingError(f"{size} bytes are announced where {self._end - place} are left")
        self._file.seek(size, os.SEEK_CUR)
        return _Skipped(place, size)


class _Dtype:
    """A plain little-endian `numpy.dtype`."""

    def __init__(self, arguments: Any) -> None:
        if not isinstance(arguments, tuple) or arguments[0] not in DTYPES:
            raise pickle.UnpicklingError(f"an array holds {arguments!r:.100}")
        self.name: str = arguments[0]

    def build(self, state: Any) -> None:
        """Apply the state that numpy pickled."""
        if state[1] != "<" or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array's dtype is not a plain little-endian one")


class _Array:
    """A `numpy.ndarray`: where its bytes are, accepted only if shape and dtype account for all of them.

    Args:
        arguments: of numpy's function that creates an empty array.
    """

    shape: tuple[int, ...] | None = None
    place: int | None = None
    content: bytes | None = None

    def __init__(self, arguments: Any) -> None:
        if not isinstance(arguments, tuple) or arguments[:2] != (NDARRAY, (0,)):
            raise pickle.UnpicklingError("an array is malformed")

    def build(self, state: Any) -> None:
        """Apply the state that numpy pickled."""
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


@dataclass(frozen=True)
class _Name:
    """A name in a pickle; nothing is imported."""

    module: str
    name: str


NDARRAY = _Name("numpy", "ndarray")
CALLS = {  # what a pickle may call, and what is called instead
    _Name("numpy", "dtype"): _Dtype,
    _Name("numpy.core.multiarray", "_reconstruct"): _Array,
    _Name("numpy._core.multiarray", "_reconstruct"): _Array,
}
NAMES_KNOWN = {NDARRAY, *CALLS}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
VALUES = frozenset((*NUMBERS, *TEXTS))
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Builds plain containers, strings, numbers and arrays from a pickle; other instructions are errors."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: _Stream) -> Any:
        """Execute the instructions of a pickle, and return what it builds."""
        value: Any
        for instruction, value, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = instruction.name
            if name in VALUES:
                self.stack.append(value)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[value] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[value])
            elif name in TUPLES:
                self.stack[-TUPLES[name] :] = [tuple(self.stack[-TUPLES[name] :])]
            elif name == "GLOBAL":
                self.stack.append(_known(*value.split(" ", 1)))
            elif name == "STOP":
                return self.stack.pop()
            elif (method := getattr(self, f"_{name.lower()}", None)) is not None:
                method()
            elif name not in ("PROTO", "FRAME"):
                raise pickle.UnpicklingError(f"it contains the instruction {name}, which weights do not need")
        raise pickle.UnpicklingError("it has no end")

    def _pop_to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _pop(self) -> None:
        self.stack.pop()

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _list(self) -> None:
        self.stack.append(self._pop_to_mark())

    def _empty_list(self) -> None:
        self.stack.append([])

    def _append(self) -> None:
        value = self.stack.pop()
        self._last(list).append(value)

    def _appends(self) -> None:
        items = self._pop_to_mark()
        self._last(list).extend(items)

    def _dict(self) -> None:
        items = self._pop_to_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._last(dict)[key] = value

    def _setitems(self) -> None:
        items = self._pop_to_mark()
        self._last(dict).update(zip(items[::2], items[1::2], strict=True))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(module, name))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or function not in CALLS:
            raise pickle.UnpicklingError("it calls a function that weights do not need")
        self.stack.append(CALLS[function](arguments))

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, (_Array, _Dtype)):
            raise pickle.UnpicklingError("it changes an object that is not an array")
        made.build(state)

    def _last(self, kind: type[T]) -> T:
        if type(self.stack[-1]) is not kind:
            raise pickle.UnpicklingError(f"it fills an object that is not a {kind.__name__}")
        return self.stack[-1]


def _known(module: Any, name: Any) -> _Name:
    if not (isinstance(module, str) and isinstance(name, str)) or _Name(module, name) not in NAMES_KNOWN:
        raise pickle.UnpicklingError(f"it names {module!s:.100}.{name!s:.100}, which weights do not need")
    return _Name(module, name)


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
    """Return Paddle's layout of a family: the official one in other files, which cannot be written."""
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
            content = _Machine().run(_Stream(stream))
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
