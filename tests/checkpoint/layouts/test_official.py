"""The official layouts: what they store, what they refuse, and where the VAE is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.checkpoint import convert as convert_module
from janusflow.checkpoint import find_folder, open_checkpoint
from janusflow.checkpoint.convert import convert, where_vae_is
from janusflow.checkpoint.layouts import official_parts
from janusflow.config import siglip_config
from tests.conftest import GOLDEN

OFFICIAL, JANUS = GOLDEN / "janusflow-small-a", GOLDEN / "janus-small-a"


def test_an_uncommon_rope_travels_in_both_families(tmp_path: Path) -> None:
    for source in (OFFICIAL, JANUS):
        changed = Path(shutil.copytree(source, tmp_path / f"changed-{source.name}"))
        raw = json.loads((changed / "config.json").read_text())
        raw["language_config"]["rope_theta"] = 50000.0
        (changed / "config.json").write_text(json.dumps(raw))
        ours = convert(changed, tmp_path / f"ours-{source.name}", progress=False)
        back = convert(ours, tmp_path / f"back-{source.name}", to="official", progress=False)
        assert json.loads((back / "config.json").read_text())["language_config"]["rope_theta"] == 50000.0
        assert open_checkpoint(back).config.text_config.rope_parameters["rope_theta"] == 50000.0


def test_the_official_layout_keeps_what_shapes_the_llm(tmp_path: Path) -> None:
    for source in (OFFICIAL, JANUS):
        changed = Path(shutil.copytree(source, tmp_path / f"changed-{source.name}"))
        raw = json.loads((changed / "config.json").read_text())
        given = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "hidden_act": "gelu"}
        raw["language_config"] |= given
        (changed / "config.json").write_text(json.dumps(raw))
        ours = convert(changed, tmp_path / f"ours-{source.name}", progress=False)
        back = convert(ours, tmp_path / f"back-{source.name}", to="official", progress=False)
        stored = json.loads((back / "config.json").read_text())["language_config"]
        assert {name: stored[name] for name in given} == given
        llms = [open_checkpoint(folder).config.text_config for folder in (changed, ours, back)]
        assert llms[0].rope_parameters["factor"] == 4.0 and llms[0].hidden_act == "gelu"
        assert all(llm.rope_parameters == llms[0].rope_parameters for llm in llms)
        assert all(llm.hidden_act == "gelu" for llm in llms)


@pytest.mark.parametrize(("width", "intermediate"), [(176, 480), (208, 240), (336, 816), (1152, 4304), (1024, 4096)])
def test_the_ratio_of_the_towers_mlp_gives_its_size_again(width: int, intermediate: int) -> None:
    vision = siglip_config(width=width, depth=1, heads=1, patch_size=16, image_size=16)
    vision.intermediate_size = intermediate
    params, spelled = official_parts.official_tower(vision, official_parts.mlp_ratio(width, intermediate))
    raw = {"vision": {"params": params}, **spelled}
    assert int(width * official_parts.read_tower(raw, "vision")[4]) == intermediate


@pytest.mark.parametrize("source", [OFFICIAL, JANUS], ids=["janusflow", "janus"])
def test_what_the_official_code_does_not_have_is_refused_before_weights_are_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = convert(source, tmp_path / "ours", progress=False)
    raw = json.loads((ours / "config.json").read_text())
    raw["vision_config"]["hidden_act"] = "gelu_pytorch_tanh"
    (ours / "config.json").write_text(json.dumps(raw))
    monkeypatch.setattr(convert_module, "write", lambda *_: pytest.fail("weights were written"))
    with pytest.raises(ValueError, match="vision_config.hidden_act is 'gelu_pytorch_tanh'; the official layout only"):
        convert(ours, tmp_path / "new", to="official", progress=False)


def test_the_official_layout_says_where_its_vae_is_and_can_include_one(vae_folder: Path, tmp_path: Path) -> None:
    bare = convert(OFFICIAL, tmp_path / "bare", to="official", progress=False)
    assert not (bare / "vae").exists() and "stabilityai/sdxl-vae" in where_vae_is(bare)
    assert where_vae_is(bare) in (bare / "README.md").read_text()
    whole = convert(OFFICIAL, tmp_path / "whole", to="official", vae=vae_folder, progress=False)
    assert "in the folder `vae`" in where_vae_is(whole) and where_vae_is(whole) in (whole / "README.md").read_text()
    given, taken = (load_file(next(place.glob("*.safetensors"))) for place in (vae_folder, whole / "vae"))
    assert all(torch.equal(given[name], taken[name]) for name in given)
    assert len(JanusFlow.from_pretrained(whole, device="cpu").generate("a star", num_inference_steps=1)) == 1
    assert where_vae_is(convert(JANUS, tmp_path / "janus", to="official", progress=False)) == ""
    with pytest.raises(ValueError, match="has its own codec"):
        convert(JANUS, tmp_path / "other", to="official", vae=vae_folder, progress=False)
    with pytest.raises(ValueError, match="latents have 4 channels"):
        tiny_vae = find_folder("tiny") / "vae"
        convert(OFFICIAL, tmp_path / "other", to="official", vae=tiny_vae, progress=False)
    assert not (tmp_path / "other").exists()


def test_older_transformers_know_the_tokenizer_of_an_official_folder(tmp_path: Path) -> None:
    folder = convert("tiny", tmp_path / "tiny", to="official", progress=False)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert told["tokenizer_class"] == "LlamaTokenizerFast" and special["eos_token"] == told["eos_token"]


def test_the_shipped_model_paints_from_the_official_layout_too(tiny_model: JanusFlow, tmp_path: Path) -> None:
    model = JanusFlow.from_pretrained(convert("tiny", tmp_path / "tiny", to="official", progress=False), device="cpu")
    pictures = [one.generate("a star", seed=0, num_inference_steps=2)[0] for one in (model, tiny_model)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
