"""The shipped model's recipe, from nothing to a folder that opens, in two steps a part and stage."""

from __future__ import annotations

from pathlib import Path

import torch

from janusflow import JanusFlow
from janusflow.processor import JanusFlowProcessor
from janusflow.training.tiny import make_processor, run

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"


def test_the_whole_recipe_gives_a_model_that_opens(tmp_path: Path) -> None:
    folder = run(tmp_path, RECIPES, device="cpu", steps=2)
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert model.network.dtype == torch.float32
    assert model.generate("a red circle", num_inference_steps=2)[0].size == (64, 64)
    assert isinstance(model.ask("what color is it?", model.generate("a star", num_inference_steps=1)), str)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 30e6
    before = (folder / "model.safetensors").read_bytes()
    assert (run(tmp_path, RECIPES, device="cpu", steps=2) / "model.safetensors").read_bytes() == before
    more = run(tmp_path / "more", RECIPES, start=str(folder), device="cpu", steps=2)
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
