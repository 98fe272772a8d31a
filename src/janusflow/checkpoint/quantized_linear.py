"""Linear layers with 8-bit or 4-bit weights for a CPU, on top of the integer kernels that PyTorch ships.

`Int8Linear` also rounds its inputs to 8 bits, each token with its own scale (W8A8), and multiplies integers.
`Int4Linear` keeps its inputs in bfloat16.

Shapes: (..., K) inputs, (..., N) outputs, weights (N, K).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

GROUP = 32  # 4-bit weights of a row that share a scale
ROWS = 16  # the 4-bit kernel takes multiples of this
EXACT_UNITS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # CPU units that add 8-bit products without saturating


class QuantizedLinear(nn.Module):
    """Base class of both layers, which replace an `nn.Linear` on the CPU.

    Args:
        linear: layer with full weights, which are not kept.

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
    """y = s_x s_w (q_x q_w), with 8-bit integers, a scale s_x per token and s_w per row of the weights.

    On a CPU without units for such products, the kernels add pairs of them in 16 bits. So that these sums do not
    overflow, the weights have 7 bits there: their rows lose less by this than inputs, whose largest value stands out.

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
        with warnings.catch_warnings():  # PyTorch plans to remove its quantized tensors, but not this kernel
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
            zeros = torch.zeros(len(scale), dtype=torch.long)
            tensor = torch._make_per_channel_quantized_tensor(rounded, scale.double(), zeros, 0)
        self.packed: Any = torch.ops.quantized.linear_prepack(tensor, None)

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        # The kernel has one scale for all tokens, which they share once each is divided by its own largest value.
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
        """Return whether the kernel accepts these sizes."""
        return linear.in_features % GROUP == 0 and linear.out_features % ROWS == 0

    def product(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self.packed, GROUP, self.scales)
        return y


def replace_linears(module: nn.Module, bits: int) -> None:
    """Replace a module's linear layers by quantized ones; those that do not fit the 4-bit kernel get 8 bits."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:  # other code reads a subclass's weights
            kind = Int4Linear if bits == 4 and Int4Linear.fits(child) else Int8Linear
            setattr(module, name, kind(child))
        else:
            replace_linears(child, bits)
