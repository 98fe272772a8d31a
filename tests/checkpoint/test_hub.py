"""Uploads: what goes up opens again, and its card names the licence. The hub itself is replaced by a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from janusflow import JanusFlow
from tests.conftest import GOLDEN


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uploads land."""
    landed = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> None:
            if "forbidden" in repo_id:
                raise PermissionError("403 Forbidden\nlong story")
            if "reset" in repo_id:
                raise ConnectionResetError

        def file_exists(self, repo_id: str, name: str) -> bool:
            return (landed / repo_id / name).is_file()

        def hf_hub_download(self, repo_id: str, name: str) -> str:
            return str(landed / repo_id / name)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
            shutil.copytree(folder_path, landed / repo_id, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}")

    monkeypatch.setattr("janusflow.checkpoint.hub.HfApi", Api)
    return landed


@pytest.mark.parametrize("name", ["janusflow-small-a", "janus-small-a"])
def test_released_weights_carry_their_licence(hub: Path, name: str) -> None:
    model: Any = JanusFlow.from_pretrained(GOLDEN / name, device="cpu")
    assert model.push_to_hub("me/mine") == "https://hub/me/mine"
    card = (hub / "me/mine" / "README.md").read_text()
    assert "license_name: deepseek" in card and "DeepSeek Model License" in card
    again: Any = JanusFlow.from_pretrained(hub / "me/mine", device="cpu")
    assert type(again) is type(model) and again.ask("hi", max_new_tokens=4) == model.ask("hi", max_new_tokens=4)
    again.push_to_hub("me/again")
    assert (hub / "me/again" / "README.md").read_text() == card


def test_own_weights_get_a_licence_of_ones_own(hub: Path, small_model: JanusFlow) -> None:
    own = JanusFlow(small_model.network, small_model.processor, small_model.vae)
    own.push_to_hub("me/mine", licence="mit")
    assert "license: mit" in (hub / "me/mine" / "README.md").read_text()


def test_a_licence_that_is_given_replaces_that_of_the_card(hub: Path, tiny_model: JanusFlow) -> None:
    tiny_model.push_to_hub("me/same")
    tiny_model.push_to_hub("me/other", licence="mit")
    same, other = ((hub / "me" / name / "README.md").read_text() for name in ("same", "other"))
    assert "license: mit" in other and "license: mit" not in same
    assert same.split("---")[2] == other.split("---")[2]


def test_a_card_on_the_hub_is_kept(hub: Path, tiny_model: JanusFlow) -> None:
    released: Any = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
    for model, licence in ((tiny_model, None), (tiny_model, "mit"), (released, None)):
        card = hub / "me/mine/README.md"
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text("---\nlicense: cc0-1.0\n---\n\nWritten by hand.\n")
        model.push_to_hub("me/mine", licence=licence, commit_message="again")
        assert "Written by hand." in card.read_text()
        assert ("license: mit" in card.read_text()) == (licence is not None)
        assert ("DeepSeek Model License" in card.read_text()) == (model is released)


def test_errors_are_one_sentence(hub: Path, small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="repo_id is 'mine'"):
        small_model.push_to_hub("mine")
    with pytest.raises(ValueError, match="could not be uploaded: 403 Forbidden$"):
        small_model.push_to_hub("me/forbidden")
    with pytest.raises(ValueError, match="could not be uploaded: ConnectionResetError$"):
        small_model.push_to_hub("me/reset")


def test_a_janus_in_transformers_layout_without_a_card_gets_the_licence(hub: Path, tmp_path: Path) -> None:
    model: Any = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
    model.save_pretrained(tmp_path / "saved")
    again: Any = JanusFlow.from_pretrained(tmp_path / "saved", device="cpu")
    again.push_to_hub("me/mine")
    assert "license_name: deepseek" in (hub / "me/mine" / "README.md").read_text()
    (tmp_path / "saved" / "README.md").write_text("---\nlicense: mit\n---\n")
    again.push_to_hub("me/other")
    assert "license_name: deepseek" in (hub / "me/other" / "README.md").read_text()
