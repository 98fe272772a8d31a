"""PaddleNLP's layout: `model_state.pdparams`, a pickle of arrays, read without running anything from it.

A file is read whole, and once: its bytes become the tensors. The unpickler knows three names, and they lead to the
classes below and not to numpy: a file can build nothing else but plain containers, strings and numbers. Names and
shapes come out as in the official layout.
"""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = "model_state.pdparams"
DTYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64, "u2": np.uint16, "i4": np.int32, "i8": np.int64}
NAMES = "StructuredToParameterName@@"  # an entry that is no tensor: Paddle's own names
EMBEDDINGS = ("embed_tokens.weight", "gen_embed.weight", "embedding.weight")  # two-dimensional, but no linear layers'


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
    """Stands for `numpy.ndarray`: bytes, made into an array only if shape and dtype account for all of them."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array is malformed")
        kind = np.dtype(DTYPES[dtype.name])
        if math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError("an array's bytes do not fill its shape")
        self.value = np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: type, shape: tuple[int, ...], letter: bytes) -> _Array:
    """Stands for numpy's function of this name, which makes an empty array for `__setstate__` to fill."""
    if kind is not _Array or shape != (0,):
        raise pickle.UnpicklingError("an array is malformed")
    return _Array()


ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights never need")
        return ADMITTED[module, name]


def read_pdparams(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.pdparams` file under their official names and in their official shapes.

    Every linear layer's weight is transposed back, and bfloat16, which Paddle stores as uint16, is that again.

    Raises:
        ValueError: if the file is damaged, cut off, or holds anything but arrays; nothing of it has been run.
    """
    try:
        with file.open("rb") as stream:
            content = _Unpickler(stream).load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dictionary of arrays")
        return {_name(key): _tensor(key, value) for key, value in content.items() if key != NAMES}
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise ValueError(f"{file} is damaged or not a weights file ({reason}); fetch it again") from error


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise pickle.UnpicklingError("an array has no name")
    return name.replace("language_model.llama.", "language_model.model.")


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, _Array) or value.value is None:
        raise pickle.UnpicklingError(f"{name} is no array")
    array = value.value
    brain = array.dtype == np.uint16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the memory is the pickle's own bytes: nobody writes to it
        tensor = torch.from_numpy(array.view(np.int16) if brain else array)
    tensor = tensor.view(torch.bfloat16) if brain else tensor
    linear = tensor.ndim == 2 and name.endswith(".weight") and not name.endswith(EMBEDDINGS)
    return tensor.T if linear else tensor
