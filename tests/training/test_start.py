"""What a run starts from: a REPA head that an earlier run left is whole, or refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from janusflow.training.start import HEAD, take_head


def test_a_damaged_repa_head_is_refused_and_one_of_another_size_only_warned_of(tmp_path: Path) -> None:
    objective: Any = SimpleNamespace(head=nn.Linear(2, 2))
    file, bias = tmp_path / HEAD, torch.zeros(2)
    save_file({"weight": torch.full((2, 2), 3.0), "bias": bias}, file)
    take_head(objective, str(tmp_path))
    assert torch.equal(objective.head.weight, torch.full((2, 2), 3.0))
    for value, message in ((torch.full((2, 2), torch.nan), "not finite"), (torch.ones(2, 2).long(), "not finite")):
        save_file({"weight": value, "bias": bias}, file)
        with pytest.raises(ValueError, match=rf"{HEAD} holds values that are {message}.*1 tensors: weight"):
            take_head(objective, str(tmp_path))
    save_file({"weight": torch.ones(3, 3), "bias": bias}, file)
    with pytest.warns(UserWarning, match="does not fit, a new REPA head begins"):
        take_head(objective, str(tmp_path))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{HEAD} is damaged .*; remove it, and a new REPA head begins"):
        take_head(objective, str(tmp_path))
