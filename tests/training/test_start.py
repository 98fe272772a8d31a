"""What a run starts from: a head of a loss that an earlier run saved is whole, or refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from janusflow.training.losses import terms
from janusflow.training.start import HEAD, take_heads


def test_a_damaged_repa_head_is_refused_and_one_of_another_size_only_warned_of(tmp_path: Path) -> None:
    head = nn.Linear(2, 2)
    objective: Any = SimpleNamespace(heads={"repa": "head"}, terms=terms(), get_submodule=lambda name: head)
    file, bias = tmp_path / HEAD.format("repa"), torch.zeros(2)
    save_file({"weight": torch.full((2, 2), 3.0), "bias": bias}, file)
    take_heads(objective, str(tmp_path))
    assert torch.equal(head.weight, torch.full((2, 2), 3.0))
    for value, message in ((torch.full((2, 2), torch.nan), "not finite"), (torch.ones(2, 2).long(), "not finite")):
        save_file({"weight": value, "bias": bias}, file)
        with pytest.raises(ValueError, match=rf"{file.name} contains values that are {message}.*1 tensors: weight"):
            take_heads(objective, str(tmp_path))
    save_file({"weight": torch.ones(3, 3), "bias": bias}, file)
    with pytest.warns(UserWarning, match="does not fit, so L_REPA starts with a new head"):
        take_heads(objective, str(tmp_path))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .*; remove it, and L_REPA starts with a new head"):
        take_heads(objective, str(tmp_path))
