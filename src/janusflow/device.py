"""Choose the device and dtype of a model. No other file names a device."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch

from janusflow.arguments import quoted

CPU = torch.device("cpu")  # device of ids, pixels and noise, whatever `torch.set_default_device` is
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ACCELERATORS = ("cuda", "mps", "xpu", "npu")
BFLOAT16_UNITS = (
    "avx512_bf16",
    "amx_bf16",
    "bf16",
    "arm_bf16",
    "sve_bf16",
)  # names of CPU features for bfloat16 products


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device for a name; "auto" is the first available of cuda, mps, xpu and npu, or the CPU.

    Raises:
        ValueError: if the name is unknown or this machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if str(device) == "auto":
        return next((torch.device(kind) for kind in ACCELERATORS if _available(kind)), torch.device("cpu"))
    resolved = named_device(device)
    if resolved.type in ACCELERATORS and not _available(resolved.type):
        raise ValueError(f"device is {quoted(device)}, but PyTorch finds no {resolved.type} device on this machine")
    if resolved.type == "cuda" and resolved.index is not None and resolved.index >= torch.cuda.device_count():
        raise ValueError(f"device is {quoted(device)}, but this machine has {torch.cuda.device_count()} cuda device(s)")
    return resolved


def named_device(device: str | torch.device) -> torch.device:
    """Return the torch device for a name other than "auto", whether or not this machine has it.

    Raises:
        ValueError: if the name is unknown.
    """
    try:
        named = torch.device(device)
    except RuntimeError:
        named = None
    if named is None or named.type not in ("cpu", *ACCELERATORS):
        raise ValueError(f"device is {quoted(str(device))}; expected auto, cpu, {', '.join(ACCELERATORS)}")
    return named


def device_of(device: str, rank: int, ranks: int) -> str:
    """Return the device of one of several processes on this machine, which get its accelerators in turn."""
    count = accelerators()
    if device != "auto" or ranks == 1 or not count:
        return device
    return f"{resolve_device('auto').type}:{rank % count}"


def use_device(device: str) -> None:
    """Let the kind of a device that `device_of` chose, without a number, mean this device in the current thread."""
    place = torch.device(device)
    torch.get_device_module(place).set_device(place)


def accelerators() -> int:
    """Return how many accelerators "auto" can distribute processes over; 0 on a CPU and with mps."""
    kind = resolve_device("auto").type
    return 0 if kind in ("cpu", "mps") else int(getattr(torch, kind).device_count())


def execution_device(module: torch.nn.Module) -> torch.device:
    """Return the device that a module computes on: its parameters', or that of accelerate's hooks if offloaded."""
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            place = getattr(one, "execution_device", None)
            if place is not None:
                return torch.device(place)
    return device


def free_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None if unknown."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    return None if ask is None else int(ask(device)[0])


def has_graphs(device: torch.device) -> bool:
    """Return whether work on a device can be recorded and launched as a whole (CUDA graphs)."""
    return device.type == "cuda"


def _available(kind: str) -> bool:
    backend = getattr(torch, kind, None) if kind != "mps" else torch.backends.mps
    return backend is not None and backend.is_available()


def resolve_dtype(dtype: str | torch.dtype, stored: torch.dtype) -> torch.dtype:
    """Return the torch dtype for a name; "auto" is the dtype of the checkpoint.

    Raises:
        ValueError: for any other name or dtype.
    """
    if dtype == "auto":
        return stored
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype in DTYPES:
        return DTYPES[str(dtype)]
    raise ValueError(f"dtype is {quoted(str(dtype))}; expected auto, {', '.join(DTYPES)}")


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the dtype of matrix products; "auto" is bfloat16 where it is fast, and float32 elsewhere.

    CPUs and CUDA devices report whether it is fast; others get bfloat16. On a CPU without bfloat16 units, a product
    takes about 40x as long as in float32 (docs/log.md).
    """
    if precision != "auto":
        return precision
    if device.type == "cpu":
        found: Mapping[str, object] = torch.cpu.get_capabilities()
        return "bfloat16" if any(found.get(unit) for unit in BFLOAT16_UNITS) else "float32"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float32"
    return "bfloat16"


def warn_if_slow(dtype: torch.dtype, device: torch.device) -> None:
    """Warn if matrix products in bfloat16 are much slower than in float32."""
    if dtype == torch.bfloat16 and resolve_precision("auto", device) == "float32":
        warnings.warn(
            f"this {device.type} device has no units for bfloat16, which may take 40x as long as float32; if memory "
            "allows, give dtype='float32' (--dtype float32)",
            stacklevel=4,  # the caller of `from_pretrained`, which `checked_names` wraps
        )


def cast(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters, as loading in that dtype does; rotary frequencies are buffers and stay float32.

    For a VAE this is `to(dtype)` without diffusers 0.42's warning (findings/diffusers_to_dtype_always_warns.sh).
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
