"""Quantize weights to 8 or 4 bits: the LLM, its head and the tower, but not g_enc, g_dec and the VAE.

g_enc and g_dec are small, and guidance amplifies their errors, so they keep their precision. A CPU runs
`checkpoint/quantized_linear.py`; elsewhere torchao quantizes the weights only, and products are computed in the
network's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from janusflow.arguments import quoted
from janusflow.building import BUILDING
from janusflow.checkpoint.quantized_linear import GROUP, QuantizedLinear, replace_linears
from janusflow.extras import require
from janusflow.families import family_of

KINDS = ("int8", "int4")


def quantize(network: Any, kind: str) -> None:
    """Quantize the linear layers in place.

    Args:
        network: network of any family, on the device where it will run.
        kind: "int8" (one scale per row; on a CPU inputs are quantized too) or "int4" (the LLM's blocks in groups of
            `GROUP`, the rest in int8).

    Raises:
        ValueError: for another kind; on an accelerator without torchao, or for int4 in another dtype than bfloat16.

    Example:
        >>> from janusflow import JanusFlow
        >>> JanusFlow.from_pretrained("tiny", device="cpu", quantize="int8").ask("what is the opposite of above?")
        'below'
    """
    check(kind, network.device)
    blocks, others = _parts(network)
    bits = 8 if kind == "int8" else 4
    with BUILDING:
        if network.device.type == "cpu":
            for name, part in others.items():
                replace_linears(part, 8)
                network.set_submodule(name, part[0])  # it may be a linear layer itself
            replace_linears(blocks, bits)
            return
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        eight = Int8WeightOnlyConfig(set_inductor_config=False)
        wanted = eight if bits == 8 else _four_bits(network)
        for part in others.values():
            quantize_(part, eight, filter_fn=_linear)
        quantize_(blocks, wanted, filter_fn=_linear)


def check(kind: str, device: torch.device) -> None:
    """Check a kind of quantization before weights are read.

    Raises:
        ValueError: for an unknown kind, or on an accelerator without torchao.
    """
    if kind not in KINDS:
        raise ValueError(f"quantize is {quoted(kind)}; expected {', '.join(KINDS)}")
    if device.type != "cpu":
        require(f"quantize={kind!r}", "torchao")


def _four_bits(network: Any) -> Any:
    """Return torchao's configuration for int4 on an accelerator."""
    if network.dtype != torch.bfloat16:
        name = str(network.dtype).removeprefix("torch.")
        raise ValueError(f"quantize is 'int4' and dtype {name}; on {network.device.type} it needs dtype='bfloat16'")
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False)


def _parts(network: Any) -> tuple[nn.Module, dict[str, nn.ModuleList]]:
    """Return the LLM's blocks, and by name the other modules whose linear layers are quantized."""
    family = family_of(network.config)
    others = {name: nn.ModuleList([network.get_submodule(name)]) for name in family.quantized}
    return network.get_submodule(family.blocks), others


def _linear(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear)


def weight_bytes(module: nn.Module) -> int:
    """Return the memory of a module's parameters, including the parts of quantized ones."""
    packed = sum(part.weight_bytes for part in module.modules() if isinstance(part, QuantizedLinear))
    return packed + sum(_bytes(parameter) for parameter in module.parameters())


def _bytes(tensor: Any) -> int:
    inner = getattr(tensor, "tensor_data_names", None)
    if inner is None:
        return int(tensor.nbytes)
    names = [*inner, *getattr(tensor, "optional_tensor_data_names", [])]
    return sum(_bytes(part) for part in (getattr(tensor, name, None) for name in names) if part is not None)
