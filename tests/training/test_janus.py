"""Janus in the trainer: it learns, resumes and is exported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration as TransformersJanus
from transformers import LlamaForCausalLM, SiglipVisionModel

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint, read_sizes
from janusflow.checkpoint.convert import convert
from janusflow.config import siglip_config
from janusflow.data.records import Record
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.families.janus import FAMILY
from janusflow.training.config import read_config
from janusflow.training.dryrun import describe
from janusflow.training.start import open_model
from tests.training.conftest import curve, quietly
from tests.training.test_distributed import sharded

GOLDEN = Path(__file__).parents[1] / "golden" / "janus-small-a"
CPU = torch.device("cpu")
LENGTH = 16  # codes of a picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures with captions, and a question about the first."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for name, color in (("red", (220, 30, 20)), ("blue", (10, 40, 240))):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(color, (8, 16, 40, 56) if name == "red" else (30, 4, 60, 34))
        picture.save(folder / f"{name}.png")
        rows.append({"image": f"{name}.png", "text": f"a {name} square"})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "data.jsonl"


def settings(file: Path, out: Path, **changes: Any) -> Any:
    source = [{"kind": "jsonl", "path": str(file)}]
    values: dict[str, Any] = {
        "out": str(out),
        "parts": ["aligner", "generation", "llm", "tower"],
        "steps": 4,
        "batch_size": 4,
        "pack_length": 256,
        "precision": "float32",
        "model": {"checkpoint": str(GOLDEN)},
        "data": {
            "understanding": source,
            "generation": source,
            "ratios": [{"understanding": 1, "generation": 1, "text": 0}],
            "workers": 0,
            "cache": str(file.parent / "cache"),
        },
        "samples": {"crop": "center"},
        "save": {"every": 2},
        "watch": {"tensorboard": False, "curves": False},
        "optimizer": {"learning_rate": 1e-3},
        "ema": 0.5,
    }
    return read_config({**values, **changes})


def test_it_learns_codes_and_then_generates_them(data: Path, tmp_path: Path) -> None:
    ratios = {"understanding": 0, "generation": 1, "text": 0}
    source = [{"kind": "jsonl", "path": str(data)}]
    config = settings(
        data,
        tmp_path / "run",
        parts=["generation", "llm"],
        steps=60,
        data={"generation": source, "ratios": [ratios], "workers": 0, "cache": str(tmp_path / "cache")},
        optimizer={"learning_rate": 5e-3, "warmup": 5},
        ema=0.0,
        save={"every": 100},
    )
    export = quietly(config)
    rows = curve(tmp_path / "run")
    assert rows[-1]["codes"] < 0.1 < 4 < rows[0]["codes"] and "flow" not in rows[0]
    model: Any = JanusFlow.from_pretrained(export, device="cpu")
    pixels = torch.stack([SampleMaker(model.processor, model.network.config, SampleConfig(crop="center")).make(
        "generation", Record(name, (data.parent / f"{name}.png",), text="x"), Random(0)
    ).drawn.pixels for name in ("red", "blue")])  # type: ignore[union-attr]  # fmt: skip
    prompts = ["a red square", "a blue square"]
    for guidance in (1, 2):
        codes = model.generate(prompts, do_sample=False, guidance_scale=guidance, output_type="latent", progress=False)
        assert torch.equal(codes, model.network.encode(pixels)), guidance
    assert len(list((tmp_path / "cache" / "codes").glob("*/*/*.safetensors"))) == 2
    before = load_file(GOLDEN / "model.safetensors")["gen_vision_model.quantize.embedding.weight"]
    assert torch.equal(model.network.model.vqmodel.quantize.embedding.weight, before)


def test_a_run_that_was_stopped_continues_to_the_bit_and_is_written_in_every_layout(data: Path, tmp_path: Path) -> None:
    whole = quietly(settings(data, tmp_path / "whole"), official=True)
    quietly(settings(data, tmp_path / "parts", steps=2))
    parts = quietly(settings(data, tmp_path / "parts"), resume=True)
    names = ("step", "ar", "codes", "loss", "gradient")
    assert [[row[name] for name in names] for row in curve(tmp_path / "whole")] == [
        [row[name] for name in names] for row in curve(tmp_path / "parts")
    ]
    ours, again = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert ours.keys() == again.keys() and all(torch.equal(ours[name], again[name]) for name in ours)
    with_transformers = TransformersJanus.from_pretrained(whole)
    theirs, model = with_transformers.state_dict(), JanusFlow.from_pretrained(whole, device="cpu")
    words = model.processor.tokenizer("a red square", return_tensors="pt", return_token_type_ids=False)
    made = with_transformers.generate(**words, generation_mode="image", do_sample=False)
    assert made.shape == (1, model.network.image_tokens), "the export has what transformers' own `generate` needs"
    official = open_checkpoint(tmp_path / "whole" / "export-official")
    assert official.layout.name == "official" and open_checkpoint(whole).layout.name == "transformers"
    back = load_file(convert(official.folder, tmp_path / "back", progress=False) / "model.safetensors")
    for name, value in ours.items():
        assert torch.equal(back[name], value) and torch.equal(theirs[name], value), name
    before = load_file(GOLDEN / "model.safetensors")["aligner.layers.0.weight"]
    assert not torch.equal(ours["model.aligner.fc1.weight"], before)


def test_adapters_learn_next_to_the_parts_of_generation(data: Path, tmp_path: Path) -> None:
    changes = {"lora": {"rank": 4, "tower": True}, "parts": ["aligner", "generation", "llm"]}
    export = quietly(settings(data, tmp_path / "run", **changes))
    prompt = {"prompts": "a red square", "do_sample": False, "output_type": "latent", "progress": False}
    merged: Any = JanusFlow.from_pretrained(export, device="cpu")
    model: Any = JanusFlow.from_pretrained(GOLDEN, adapter=export / "adapter", device="cpu")
    inputs = torch.tensor([[5, 9, 3]])
    torch.testing.assert_close(model.network(inputs).logits, merged.network(inputs).logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(model.generate(**prompt), merged.generate(**prompt))
    tensors = load_file(export / "adapter" / "adapter_model.safetensors")
    adapted = {name.split(".lora_")[0] for name in tensors if ".lora_" in name}
    assert sum("vision_model" in name for name in adapted) == 2 * 6
    assert sum("language_model" in name for name in adapted) == 3 * 7
    whole = [name for name in tensors if ".lora_" not in name]
    assert {name.split(".")[3] for name in whole} == {
        "aligner", "generation_aligner", "generation_embeddings", "generation_head"
    }  # fmt: skip
    before = load_file(GOLDEN / "model.safetensors")["gen_head.vision_head.weight"]
    assert not torch.equal(merged.network.model.generation_head.vision_head.weight, before)


def test_two_sharded_processes_give_the_curve_of_one(data: Path, tmp_path: Path) -> None:
    quietly(settings(data, tmp_path / "one", steps=3))
    sharded(settings(data, tmp_path / "two", steps=3))
    for one, two in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert two["codes"] == pytest.approx(one["codes"], rel=1e-4) and two["ar"] == pytest.approx(one["ar"], rel=1e-4)


def test_what_does_not_fit_codes_is_refused_and_a_dry_run_describes_the_rest(data: Path, tmp_path: Path) -> None:
    text = describe(settings(data, tmp_path / "run"))
    assert "generation" in text and "tokens per step" in text
    assert text.startswith("model: Janus, losses ar 1, codes 1")
    with pytest.raises(ValueError, match="the weights of ar, codes in loss are all 0"):
        quietly(settings(data, tmp_path / "run", loss={"ar": 0, "codes": 0}))
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    replay = {"generation": [{"kind": "replay", "path": "tinyworld"}], "ratios": ratios}
    with pytest.raises(ValueError, match=r"data.generation.0 is a replay, .* give anchors instead"):
        quietly(settings(data, tmp_path / "run", data=replay))
    new = {"preset": "janus_1b", "processor": str(GOLDEN)}
    with pytest.raises(ValueError, match="a new Janus has no codec; give model.vae=CHECKPOINT"):
        open_model(settings(data, tmp_path / "run", model=new), CPU)
    with pytest.raises(ValueError, match="model.vae is tiny, a JanusFlow model, but a new Janus takes its codec"):
        open_model(settings(data, tmp_path / "run", model=new | {"vae": "tiny"}), CPU)


def test_a_new_janus_takes_llm_tower_and_codec(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = read_sizes(GOLDEN)
    monkeypatch.setitem(FAMILY.presets, "janus_1b", lambda: copy.deepcopy(sizes))
    torch.manual_seed(0)
    llm = LlamaForCausalLM(sizes.text_config)
    vision = siglip_config(width=48, depth=2, heads=4, patch_size=16, image_size=64, pool_head=False)
    tower = SiglipVisionModel(vision).eval()
    llm.save_pretrained(tmp_path / "llm")
    tower.save_pretrained(tmp_path / "tower")
    new = {"preset": "janus_1b", "processor": str(GOLDEN), "llm": str(tmp_path / "llm")}
    new |= {"tower": str(tmp_path / "tower"), "vae": str(GOLDEN)}
    model: Any = open_model(settings(data, tmp_path / "run", model=new), CPU)
    pixels, ids = torch.rand(1, 3, 64, 64) * 2 - 1, torch.tensor([[4, 9, 7]])
    seen = model.network.model.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(seen, tower(pixels).last_hidden_state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.network(ids).logits, llm(ids).logits, atol=1e-5, rtol=1e-4)
    released: Any = JanusFlow.from_pretrained(GOLDEN, device="cpu")
    assert torch.equal(model.network.encode(pixels), released.network.encode(pixels))
