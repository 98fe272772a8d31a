"""Linear layers with weights of 8 or 4 bits for a CPU, over the integer kernels that PyTorch ships.

`Int8Linear` also rounds its inputs to 8 bits, each token with a scale of its own (W8A8), and multiplies integers.
`Int4Linear` keeps its inputs in bfloat16.

Shapes: (..., K) inputs, (..., N) outputs, weights (N, K).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

GROUP = 32  # weights of a row that share a scale, in 4 bits
ROWS = 16  # the kernel of 4 bits takes multiples of them
EXACT_UNITS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # add products of 8 bits without saturating


class QuantizedLinear(nn.Module):
    """What both have: they take the place of an `nn.Linear` on the CPU.

    Args:
        linear: the layer with its full weights, which are not kept.

    Attributes:
        weight_bytes: memory of the quantized weights.
    """

    weight_bytes: int

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any dtype -> (..., N) of the same."""
        y = self.product(x.reshape(-1, self.in_features)).to(x.dtype)
        y = y if self.bias is None else y.add_(self.bias)
        return y.view(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor) -> Tensor:
        """x W^T: (M, K) -> (M, N)."""
        raise NotImplementedError

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        if fn(torch.empty(0, device="cpu")).device.type not in ("cpu", "meta"):
            raise ValueError("weights that were quantized on the CPU stay there; open the model on the other device")
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Int8Linear(QuantizedLinear):
    """y = s_x s_w (q_x q_w), with integers of 8 bits, a scale s_x per token and s_w per row of the weights.

    Where a CPU has no units for such products, its kernels add pairs of them in 16 bits. There the weights have 7 bits,
    because sums of two could exceed that: rows of weights lose less by it than inputs, whose largest value stands out.

    Example:
        >>> layer = nn.Linear(64, 32)
        >>> Int8Linear(layer)(torch.ones(2, 64)).shape
        torch.Size([2, 32])
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach().float()
        largest = 127 if any(torch.cpu.get_capabilities().get(unit) for unit in EXACT_UNITS) else 63
        scale = (weight.abs().amax(dim=1) / largest).clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        self.weight_bytes = rounded.nbytes + scale.nbytes
        with warnings.catch_warnings():  # PyTorch means to drop its quantized tensors some day, but not this kernel
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
            zeros = torch.zeros(len(scale), dtype=torch.long)
            tensor = torch._make_per_channel_quantized_tensor(rounded, scale.double(), zeros, 0)
        self.packed: Any = torch.ops.quantized.linear_prepack(tensor, None)

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        # The kernel has one scale for all tokens: they share it once each is divided by its own largest value.
        largest = wide.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        y: Tensor = torch.ops.quantized.linear_dynamic(wide / largest, self.packed, False)
        return y.mul_(largest)


class Int4Linear(QuantizedLinear):
    """y = x (s (q - 8) + z)^T, with q from 0 to 15, and a scale s and a middle z per group of a row's weights.

    Raises:
        ValueError: if K is not a multiple of `GROUP`, or N of `ROWS`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        if not self.fits(linear):
            shape = (self.out_features, self.in_features)
            raise ValueError(f"the weights are {shape}; 4 bits need multiples of ({ROWS}, {GROUP})")
        groups = linear.weight.detach().float().unflatten(1, (-1, GROUP))  # (N, K / G, G)
        low, high = groups.aminmax(dim=2)
        scale = ((high - low) / 15).clamp(min=torch.finfo(torch.float32).tiny)
        levels = ((groups - low[..., None]) / scale[..., None]).round().clamp_(0, 15).flatten(1).to(torch.int32)
        scales = torch.stack([scale, low + 8 * scale], dim=-1).transpose(0, 1).contiguous()
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        self.scales = scales.bfloat16()  # (K / G, N, 2)
        self.weight_bytes = self.packed.nbytes + self.scales.nbytes

    @staticmethod
    def fits(linear: nn.Linear) -> bool:
        """Whether the kernel takes these sizes."""
        return linear.in_features % GROUP == 0 and linear.out_features % ROWS == 0

    def product(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self.packed, GROUP, self.scales)
        return y


def replace_linears(module: nn.Module, bits: int) -> None:
    """Put quantized layers in the place of a module's linear ones; those that 4 bits do not fit get 8."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:  # a subclass's weights are read by others
            kind = Int4Linear if bits == 4 and Int4Linear.fits(child) else Int8Linear
            setattr(module, name, kind(child))
        else:
            replace_linears(child, bits)
