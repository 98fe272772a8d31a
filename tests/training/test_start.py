"""What a run starts from: sizes are checked before weights are read, and a saved head is whole or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import janusflow.families as registry
from janusflow.families import families
from janusflow.training.config import load_config
from janusflow.training.dryrun import describe
from janusflow.training.losses import terms
from janusflow.training.start import HEAD, check_sizes, take_heads
from tests.conftest import GOLDEN
from tests.training.config.conftest import write


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


RECIPES = Path(__file__).parents[2] / "recipes"


def test_what_does_not_fit_the_model_is_told_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write(tmp_path), ["model=tiny", "loss.repa_block=9"])
    for check in (describe, check_sizes):
        with pytest.raises(ValueError, match="repa_block is 9; the LLM has blocks 1 to 8"):
            check(config)
    nothing = load_config(write(tmp_path), ["model=tiny", "loss.ar=0", "loss.flow=0", "loss.repa=0"])
    with pytest.raises(ValueError, match="weights of ar, flow, repa in loss are all 0, so a JanusFlow learns nothing"):
        check_sizes(nothing)
    janus = load_config(write(tmp_path), [f"model={GOLDEN / 'janus-small-a'}"])
    assert check_sizes(janus).model_type == "janus"
    monkeypatch.setitem(registry._found, "Janus", replace(families()["Janus"], trainable={}))
    with pytest.raises(ValueError, match="is a Janus model; here JanusFlow is trained"):
        check_sizes(janus)


def test_what_is_anchored_alone_is_refused() -> None:
    recipe = RECIPES / "tiny" / "finetune_both.yaml"
    for check in (describe, check_sizes):
        with pytest.raises(ValueError, match="all data is anchored .* so it learns nothing; give data=FOLDER"):
            check(load_config(recipe, ["model=tiny"]))
    check_sizes(load_config(recipe, ["model=tiny", "data.generation.0.anchor=false"]))
    with pytest.raises(ValueError, match="model.checkpoint: .*runs/tiny/parts"):
        check_sizes(load_config(RECIPES / "tiny" / "stage1.yaml"))
