"""Build modules under one lock, and check that no weight is missing or not finite.

transformers and diffusers patch process-wide state (weight initialization, parameter registration) while they build a
network. If two threads build at the same time, a patch can remain, and every later load in the process fails.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

BUILDING = threading.RLock()
"""Lock to hold while a module is built or changed: `with BUILDING: ...`. It is reentrant."""

NAMED = 3  # names listed in an error about many tensors


def open_complete(kind: Any, where: str, *, surplus: bool = True, **options: Any) -> Any:
    """Open a transformers or diffusers model whose files must contain all of its weights.

    Both libraries initialize missing weights randomly and only log it.

    Args:
        kind: a class with `from_pretrained`.
        where: folder or hub id.
        surplus: whether tensors that the model does not use are accepted.

    Raises:
        ValueError: if weights are missing, surplus, misshapen or not finite numbers; the message names the first few.
    """
    with BUILDING:
        model, report = kind.from_pretrained(where, output_loading_info=True, **options)
    faults = {
        "lack": report["missing_keys"],
        "hold misshapen": [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]],
    }
    if not surplus:
        faults["hold surplus"] = report["unexpected_keys"]
    for fault, names in faults.items():
        if names:
            raise ValueError(f"the weights in {where} {fault} {named(names, 'tensors')}")
    broken = [name for name, value in model.named_parameters() if not finite(value)]
    if broken:
        raise ValueError(f"the weights in {where} have NaN or infinite values in {named(broken, 'tensors')}")
    return model


def finite(value: Tensor) -> bool:
    """Return whether a tensor contains only floating-point numbers, none of them NaN or infinite."""
    if not value.is_floating_point():
        return False
    if not value.numel() or value.is_meta:
        return True
    low, high = torch.aminmax(value if value.itemsize > 1 else value.float())  # one pass; NaN propagates
    return bool(torch.isfinite(low) & torch.isfinite(high))


def named(names: Collection[str], what: str) -> str:
    """Count names and list the first few: "5 tensors: a, b, c and 2 more"."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(sorted(names)[:NAMED])}{more}"
