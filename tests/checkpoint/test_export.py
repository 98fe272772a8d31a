"""What came from the official layout goes back to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.export import export, stored_tensors
from janusflow.checkpoint.layouts.official import LAYOUT, official_config, read_config
from janusflow.config import janusflow_1b
from tests.conftest import Golden


def test_a_golden_checkpoint_returns_to_the_bit(golden: Golden, golden_model: JanusFlow, tmp_path: Path) -> None:
    network = golden_model.network
    folder = export(
        LAYOUT, network.config, dict(network.named_parameters()), golden_model.processor, tmp_path / "official"
    )
    before, after = load_file(golden.folder / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    assert json.loads((folder / "config.json").read_text()) == json.loads((golden.folder / "config.json").read_text())
    again = JanusFlow.from_pretrained(folder, device="cpu")
    arguments = {"seed": 0, "num_inference_steps": 2, "output_type": "latent"}
    assert torch.equal(again.generate("a star", **arguments), golden_model.generate("a star", **arguments))
    assert again.chat(golden.conversations[0], max_new_tokens=8) == golden_model.chat(
        golden.conversations[0], max_new_tokens=8
    )


def test_the_released_sizes_return_under_their_released_names() -> None:
    for size in (384, 256):
        config = janusflow_1b(size)
        raw = official_config(config, "bfloat16")
        assert "small_vision_tower" not in raw
        assert raw["vision_und_enc_config"]["params"]["model_name"] == f"siglip_large_patch16_{size}"
        ids = {"<image_placeholder>": 1, "<begin_of_image>": 2, "<end_of_image>": 3}
        again = read_config(raw, ids)
        for field in ("generation_encoder_width", "generation_decoder_width", "image_size", "latent_patch_size"):
            assert getattr(again, field) == getattr(config, field)
        for field in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "rms_norm_eps"):
            assert getattr(again.text_config, field) == getattr(config.text_config, field)
        with torch.device("meta"):
            network = JanusFlowForConditionalGeneration(config)
        parameters = dict(network.named_parameters())
        official = stored_tensors(parameters, parameters.__getitem__, LAYOUT.source)
        assert sum(value.numel() for _, value in official) == sum(p.numel() for p in network.parameters())


def test_a_model_of_ours_opens_as_an_official_one(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    ours = JanusFlow.from_pretrained(tmp_path / "ours", device="cpu")
    export(LAYOUT, ours.network.config, ours.network.state_dict(), ours.processor, tmp_path / "official")
    assert open_checkpoint(tmp_path / "official").layout.name == "official"
