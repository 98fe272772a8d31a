"""CUDA graphs: a function of fixed shapes is recorded once, and then launched as a whole instead of kernel by kernel.

A step of a picture or a token of an answer runs hundreds of small kernels, so a GPU spends most of the time launching.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 2  # calls before recording, in which libraries and the compiler initialize


class Graphed:
    """A function of tensors with one result, recorded at its first call.

    Shapes, dtypes and whatever else the function reads must stay the same; what it reads besides its arguments is read
    from its place in memory. It may write to such memory if a repeated call writes the same.

    Args:
        function: a function that runs without waiting for the device.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._result: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return function(*inputs)."""
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None and self._result is not None
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._result.clone()  # the next call overwrites it

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [value.clone() for value in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self.function(*self._inputs)
