"""Cards of trained weights: a front matter that the hub accepts, and the licence of what they were trained from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from janusflow.checkpoint import find_folder, open_checkpoint
from janusflow.checkpoint.card import write_trained_card
from tests.conftest import GOLDEN


def written(folder: Path, source: Path | None, base_model: str | None, *, adapter: bool = False) -> ModelCard:
    checkpoint = None if source is None else open_checkpoint(source)
    write_trained_card(folder, checkpoint, title="mine", text="Trained.", base_model=base_model, adapter=adapter)
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize("adapter", [False, True])
def test_weights_trained_from_released_ones_name_their_base_and_licence(tmp_path: Path, adapter: bool) -> None:
    card = written(tmp_path, GOLDEN / "janusflow-small-a", "deepseek-ai/JanusFlow-1.3B", adapter=adapter)
    assert card.data.to_dict() == {
        "base_model": "deepseek-ai/JanusFlow-1.3B",
        "base_model_relation": "adapter" if adapter else "finetune",
        "library_name": "peft" if adapter else "janusflow",
        "license": "other",
        "license_name": "deepseek",
        "license_link": "https://github.com/deepseek-ai/DeepSeek-LLM/blob/HEAD/LICENSE-MODEL",
        "pipeline_tag": "image-text-to-text",
        "tags": ["janusflow", "text-to-image", *(["lora"] if adapter else [])],
    }
    assert "# mine" in card.text and "Trained." in card.text and "[DeepSeek Model License]" in card.text


def test_a_licence_that_the_source_declares_is_carried_over(tmp_path: Path) -> None:
    assert written(tmp_path, find_folder("tiny"), "tiny").data.license == "apache-2.0"
    shutil.copytree(find_folder("tiny"), tmp_path / "source")
    words = (
        "---\nlanguage:\n- en\nbase_model: me/before\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n"
    )
    (tmp_path / "source" / "README.md").write_text(words)
    (tmp_path / "source" / "LICENSE").write_text("mine")
    card = written(tmp_path, tmp_path / "source", str(tmp_path / "source"))
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "mine", "LICENSE")
    assert card.data.base_model == "me/before", "a folder's own name is none of the hub's"
    assert (tmp_path / "LICENSE").read_text() == "mine"


@pytest.mark.parametrize("words", [None, "no front matter", "---\na: [1\n---\n", "---\n- a\n---\n"])
def test_without_a_known_licence_it_is_unknown(tmp_path: Path, words: str | None) -> None:
    shutil.copytree(find_folder("tiny"), tmp_path / "source")
    (tmp_path / "source" / "README.md").unlink()
    if words is not None:
        (tmp_path / "source" / "README.md").write_text(words)
    for source in (tmp_path / "source", None):
        data = written(tmp_path, source, None).data
        assert data.license == "unknown" and data.base_model is None


def test_the_base_of_a_folder_in_the_hubs_cache_is_the_hubs_name(tmp_path: Path) -> None:
    place = tmp_path / "models--me--model" / "snapshots" / "abc"
    shutil.copytree(find_folder("tiny"), place)
    assert written(tmp_path, place, str(place)).data.base_model == "me/model"
