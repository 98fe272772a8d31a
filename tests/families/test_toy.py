"""A family in one file, with its network, is opened, asked, trained and converted without a word of it in the core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig, SiglipVisionConfig

import janusflow.families as registry
from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.training.config import read_config
from janusflow.training.trainer import train
from tests.families.toy import FAMILY, PATCH, SIDE, Toy, ToyConfig, ToyNetwork


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    registry.register(FAMILY)
    yield
    del registry._own[FAMILY.name]


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A new toy with the tokenizer of a small JanusFlow."""
    tokenizer = JanusFlowProcessor.from_pretrained(small_folder).tokenizer
    processor = JanusFlowProcessor(tokenizer, TextSettings((SIDE // PATCH) ** 2), ImageSettings(SIDE))
    config = ToyConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
        ),
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH),
        image_token_id=processor.image_id,
    )
    torch.manual_seed(0)
    Toy(ToyNetwork(config).eval(), processor).save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


def test_it_is_opened_and_generates_and_answers(folder: Path) -> None:
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert isinstance(model, Toy) and model.family is FAMILY
    picture, other = model.generate(["a red circle", "a star"], seed=1)
    assert picture.size == (SIDE, SIDE) and picture.tobytes() != other.tobytes()
    assert (
        picture.tobytes() == Toy.from_pretrained(folder, device="cpu").generate(["a red circle"], seed=1)[0].tobytes()
    )
    assert model.ask("what is it?", picture, max_new_tokens=4) == model.ask("what is it?", picture, max_new_tokens=4)
    assert model.resolve("a star", {}) == {"num_inference_steps": 4}
    described = describe(folder)
    assert (described.family, described.layout, described.image_tokens) == ("Toy", "janusflow", (16, 64))


def test_what_it_does_not_have_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a Toy model, which takes no vae; leave it out"):
        JanusFlow.from_pretrained(folder, vae="somewhere")
    with pytest.raises(ValueError, match="Toy has no layout 'official'; expected janusflow, old"):
        convert(folder, folder.with_name("new"), to="official", progress=False)
    with pytest.raises(ValueError, match="a family JanusFlow already exists"):
        registry.register(registry.Family(**{**vars(FAMILY), "name": "JanusFlow"}))


def test_it_is_converted_there_and_back(folder: Path) -> None:
    old = convert(folder, folder.with_name("old"), to="old", progress=False)
    assert open_checkpoint(old).layout.name == "old"
    assert all(name.startswith("old.") for name in load_file(old / "model.safetensors"))
    back = convert(old, folder.with_name("back"), progress=False)
    before, after = load_file(folder / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_it_is_trained(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(tmp_path / "red.png")
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"image": "red.png", "text": "a red square"}) + "\n")
    source = [{"kind": "jsonl", "path": str(data)}]
    config = read_config(
        {
            "out": str(tmp_path / "run"),
            "parts": ["aligner", "generation", "llm"],
            "steps": 3,
            "batch_size": 4,
            "pack_length": 256,
            "precision": "float32",
            "model": {"checkpoint": str(folder)},
            "data": {
                "understanding": source,
                "generation": source,
                "ratios": [{"understanding": 1, "generation": 1, "text": 0}],
                "workers": 0,
            },
            "loss": {"repa": 0},
            "optimizer": {"learning_rate": 1e-2},
            "ema": 0.0,
            "watch": {"tensorboard": False, "curves": False},
        }
    )
    export = train(config, device="cpu", progress_bar=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["ar"] < rows[0]["ar"] and all(row["flow"] > 0 for row in rows)
    trained = JanusFlow.from_pretrained(export, device="cpu")
    assert isinstance(trained, Toy)
    assert not torch.equal(trained.network.eye.weight, Toy.from_pretrained(folder, device="cpu").network.eye.weight)
