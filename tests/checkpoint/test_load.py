"""Opening checkpoints: every layout through one door."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.checkpoint import open_checkpoint, read_sizes
from janusflow.config import JanusFlowConfig, janusflow_1b
from tests.checkpoint.conftest import network


def test_the_released_size_has_the_released_number_of_parameters() -> None:
    for size, tokens in ((384, 576), (256, 256)):
        config = janusflow_1b(size)
        with torch.device("meta"):
            count = sum(p.numel() for p in JanusFlowForConditionalGeneration(config).parameters())
        positions = (576 - tokens) * config.vision_config.hidden_size
        assert count == 2_046_367_504 - positions
        assert config.num_understanding_tokens == config.num_generation_tokens == tokens
    with pytest.raises(ValueError, match="512"):
        janusflow_1b(512)


def test_every_official_tensor_is_used_and_kept(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert sum(p.numel() for p in network(folder).parameters()) == sum(t.numel() for t in stored.values())


def test_our_layout_opens_again_and_is_the_same_to_the_bit(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    again = JanusFlow.from_pretrained(tmp_path / "ours", device="cpu")
    through_transformers = JanusFlowForConditionalGeneration.from_pretrained(tmp_path / "ours")
    for name, value in small_model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
        assert torch.equal(through_transformers.state_dict()[name], value)
    arguments = {"seed": 1, "num_inference_steps": 2, "output_type": "np"}
    assert (again.generate("a star", **arguments) == small_model.generate("a star", **arguments)).all()


def test_a_sharded_checkpoint_opens(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.network.save_pretrained(tmp_path, max_shard_size="300KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    sharded = network(tmp_path)
    assert all(torch.equal(sharded.state_dict()[k], v) for k, v in small_model.network.state_dict().items())
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ weight files: model-00002"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_cast_while_they_load(folder: Path, dtype: str) -> None:
    model = JanusFlow.from_pretrained(folder, dtype=dtype, device="cpu")
    assert {p.dtype for p in model.network.parameters()} == {getattr(torch, dtype)}


def test_a_hub_id_is_fetched_once_named(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, **settings: object) -> str:
        asked.append(name)
        return str(small_folder)

    monkeypatch.setattr("janusflow.folders.snapshot_download", fetch)
    model = JanusFlow.from_pretrained("deepseek-ai/JanusFlow-1.3B", device="cpu")
    assert asked == ["deepseek-ai/JanusFlow-1.3B"]
    assert model.generate("a star", num_inference_steps=1, output_type="latent").shape == (1, 4, 8, 8)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **settings: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("janusflow.folders.snapshot_download", fail)
    with pytest.raises(ValueError, match="nor in the hub's cache, and HF_HUB_OFFLINE is set"):
        JanusFlow.from_pretrained("deepseek-ai/JanusFlow-1.3B")


def test_a_model_is_saved_whole_or_not_at_all(small_model: JanusFlow, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; a model is saved as a folder"):
        small_model.save_pretrained(tmp_path / "file")
    folder = tmp_path / "model"
    small_model.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    small_model.save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"])
def test_a_missing_processor_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        JanusFlow.from_pretrained(folder, device="cpu")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="contains no weights"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "./nowhere", "a/b/c"])
def test_an_unknown_model_is_refused_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ValueError, match="a file; expected the folder|expected 'tiny', a folder, or a hub id"):
        open_checkpoint(name)


def test_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint folder: it has no config.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no config.json; the model that training wrote is .*export$"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="a variable of the environment that is not set"):
        open_checkpoint("${NO_SUCH_VARIABLE}/model")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file; expected the folder|expected 'tiny', a folder, or a hub id"):
        open_checkpoint(tmp_path / "file")


def test_the_dimensions_of_a_hub_id_need_no_weights(
    folder: Path, small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        place = tmp_path / name
        shutil.copytree(small_folder if "ours" in name else folder, place)
        for file in [file for file in place.rglob("*") if file.is_file()]:
            if not any(fnmatch(str(file.relative_to(place)), pattern) for pattern in allow_patterns):
                file.unlink()
        return str(place)

    monkeypatch.setattr("janusflow.folders.snapshot_download", fetch)
    for name, whole in (("official/x", folder), ("ours/x", small_folder)):
        sizes = read_sizes(name)
        assert not list((tmp_path / name).glob("*.safetensors"))
        assert isinstance(sizes, JanusFlowConfig)
        assert sizes.text_config.hidden_size == open_checkpoint(whole).config.text_config.hidden_size
