"""The shipped model's recipe, from nothing to a folder that opens, in one step a part and stage."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor

from janusflow import JanusFlow
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.tinyworld.recipe import samples as samples
from janusflow.tinyworld.recipe.parts import look_back, make_processor, network_config, spread
from janusflow.tinyworld.recipe.train import run
from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, SHAPES, TINT

RECIPES = Path(__file__).parents[3] / "recipes" / "tiny"


def test_the_vae_sees_colours_of_no_name_too() -> None:
    pixels = samples.any_scenes(0, 0, 60)
    known = torch.tensor(list(BACKGROUNDS.values())) / 127.5 - 1
    away = (pixels[:, None, :, 0, 0] - known).abs().amax(dim=2).amin(dim=1) > (TINT + 1) / 127.5
    assert 6 <= away.sum() <= 24 and torch.equal(samples.any_scenes(0, 0, 60), pixels)


def test_the_whole_recipe_gives_a_model_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forking = multiprocessing.get_context("fork")  # whose workers need not import everything again
    monkeypatch.setattr("janusflow.tinyworld.recipe.reflow.get_context", lambda method: forking)
    folder = run(tmp_path, RECIPES, device="cpu", steps=1, rounds=1)
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert model.network.dtype == torch.float32
    assert model.generate("a red circle", num_inference_steps=2)[0].size == (64, 64)
    assert isinstance(
        model.ask("what color is it?", model.generate("a star", num_inference_steps=1), max_new_tokens=4), str
    )
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 30e6
    before = (folder / "model.safetensors").read_bytes()
    assert (run(tmp_path, RECIPES, device="cpu", steps=1, rounds=1) / "model.safetensors").read_bytes() == before
    more = run(tmp_path / "more", RECIPES, start=str(folder), device="cpu", steps=1, rounds=0)
    assert (tmp_path / "more" / "pairs" / "stage3" / "guidance2.5" / "reflow.json").is_file()
    assert not (tmp_path / "more" / "parts").exists()
    assert (more / "model.safetensors").read_bytes() != before
    assert (more / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_tokenizer_knows_the_world_by_heart(tmp_path: Path) -> None:
    processor: JanusFlowProcessor = make_processor(tmp_path)
    tokenizer = processor.tokenizer
    words = ["a", "red", "circle", "above", "a", "blue", "square"]
    assert tokenizer.tokenize(" " + " ".join(words)) == [f"Ġ{word}" for word in words]
    assert tokenizer.decode(tokenizer.encode(" red", add_special_tokens=False)) == "red"
    for text in ("你好 ½ ünïcode", "User: hi\n\nAssistant:"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_what_the_tower_is_told_of_patches_is_what_they_show() -> None:
    scenes = samples.described_scenes(seed=3, step=0, count=64, side=8)
    assert scenes.shown.shape == (64, 64, 2) and scenes.masks.shape == (64, 64, 64)
    named = {(1 + SHAPES.index(kind), 1 + list(COLORS).index(color)) for kind in SHAPES for color in COLORS}
    for index, words in enumerate(scenes.words):
        shown, masks = scenes.shown[index], scenes.masks[index]
        for kind, color in {tuple(pair) for pair in shown.tolist()} - {(0, 0)}:
            assert (kind, color) in named
            assert f"{list(COLORS)[color - 1]} {SHAPES[kind - 1]}" in words
        filled = masks.mean(dim=1)
        assert bool((shown[filled > 0.5] > 0).all()), "a patch that is mostly shape has a label"
        assert float(filled[shown[:, 0] == 0].max()) < 0.5
        picture = (scenes.pixels[index].permute(1, 2, 0) + 1) / 2  # (64, 64, 3)
        patches = rearrange(picture, "(h p) (w q) c -> (h w) (p q) c", p=8, q=8)
        background = patches[masks == 0]
        assert float((background - background.median(dim=0).values).abs().max()) < 0.07


def test_the_first_heads_look_one_and_two_words_back(tiny_model: JanusFlow) -> None:
    torch.manual_seed(0)
    network = JanusFlowForConditionalGeneration(network_config(tiny_model.processor))
    spread(network)
    ids = torch.randint(10, 500, (2, 60))
    before = seen_by_heads(network, ids)
    look_back(network)
    heads = seen_by_heads(network, ids)
    for layer in range(3):
        for head, offset in enumerate((1, 2)):
            there = heads[layer][:, head].diagonal(-offset, 1, 2)  # (2, 60 - offset)
            assert there.mean() > 0.7 > 0.1 > before[layer][:, head].diagonal(-offset, 1, 2).mean()
        others = heads[layer][:, 2:].diagonal(-1, 2, 3)
        assert others.mean() < 0.1


def seen_by_heads(network: JanusFlowForConditionalGeneration, ids: Tensor) -> tuple[Tensor, ...]:
    """Attention of each layer, (B, heads, T, T)."""
    network.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        return network.language_model(input_ids=ids, output_attentions=True).attentions
