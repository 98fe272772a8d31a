"""What `janusflow info` says is what the weights are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from tests.conftest import GOLDEN


def test_parts_add_up_to_the_weights(small_folder: Path, small_model: JanusFlow) -> None:
    found = describe(small_folder)
    network = small_model.network
    assert (found.family, found.layout, found.sft_format) == ("JanusFlow", "official", "deepseek_old")
    assert sum(count for count, _ in found.parts.values()) == sum(p.numel() for p in network.parameters())
    assert found.parts["lm_head"][0] == network.lm_head.weight.numel()
    assert found.image_size == network.config.image_size
    assert found.vae is None
    assert found.bytes > sum(count for count, _ in found.parts.values())


def test_our_own_layout_with_its_vae(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    found = describe(tmp_path)
    assert found.layout == "janusflow"
    assert found.vae == tmp_path / "vae"
    assert sum(count for count, _ in found.parts.values()) == sum(p.numel() for p in small_model.network.parameters())


def test_a_configuration_of_another_network_is_told(small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "copy"))
    raw = json.loads((folder / "config.json").read_text())
    raw["language_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"lacks 9 tensors: language_model\.model\.layers"):
        describe(folder)


def test_every_layout(tmp_path: Path) -> None:
    pickled = Path(shutil.copytree(GOLDEN / "janusflow-small-a", tmp_path / "bin"))
    weights = load_file(pickled / "model.safetensors")
    torch.save(weights, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    transformers = convert(GOLDEN / "janus-small-a", tmp_path / "transformers", to="transformers", progress=False)
    for folder, layout, dtype in (
        (GOLDEN / "janusflow-small-a-paddle", "paddle", "float32"),
        (pickled, "official", "float32"),
        (transformers, "transformers", "float32"),
        (convert(pickled, tmp_path / "half", dtype="bfloat16", progress=False), "janusflow", "bfloat16"),
    ):
        found, network = describe(folder), JanusFlow.from_pretrained(folder, device="cpu").network
        assert found.layout == layout and set(found.dtypes) == {dtype}
        assert sum(count for count, _ in found.parts.values()) == sum(p.numel() for p in network.parameters())


def test_a_janus() -> None:
    folder = GOLDEN / "janus-small-a"
    found = describe(folder)
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert (found.family, found.layout, found.sft_format) == ("Janus", "official", "deepseek")
    assert sum(count for count, _ in found.parts.values()) == sum(p.numel() for p in model.network.parameters())
    assert (found.image_size, found.drawn, found.image_tokens) == (64, "16 codes out of 128", (16, 16))
