"""Upload a model to the Hugging Face hub with a model card that names its licence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi

from janusflow.arguments import quoted
from janusflow.checkpoint.card import keep_card, write_card
from janusflow.checkpoint.load import Checkpoint
from janusflow.offline import first_line


class Savable(Protocol):
    """A model that can be uploaded."""

    origin: Checkpoint | None

    def save_pretrained(self, folder: str | Path) -> None: ...


def push_to_hub(
    model: Savable,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    licence: str | None = None,
    commit_message: str = "Upload with janusflow",
) -> str:
    """Upload a model and its card. A card that the repository already has is kept; the licence is added if it lacks it.

    Args:
        model: model of any family.
        repo_id: "owner/name"; created if it does not exist.
        private: whether a new repository is private.
        token: access token; by default the one that `hf auth login` stored.
        licence: licence of your own weights, in the hub's spelling; by default, the one that the card next to them
            declares, or else "other". Released weights keep theirs.
        commit_message: message of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: if `repo_id` is not a hub id, or the upload fails.

    Example:
        >>> from janusflow import JanusFlow
        >>> model = JanusFlow.from_pretrained("runs/mine/export")  # doctest: +SKIP
        >>> model.push_to_hub("owner/name", private=True)  # doctest: +SKIP
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {quoted(repo_id)}; expected owner/name")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="janusflow-upload-") as folder:
        model.save_pretrained(folder)
        text = f"A {type(model).__name__} model, uploaded with [janusflow](https://pypi.org/project/janusflow)."
        write_card(Path(folder), model.origin, title=repo_id.split("/")[1], text=text, licence=licence)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if api.file_exists(repo_id, "README.md"):
                standing = Path(api.hf_hub_download(repo_id, "README.md")).read_text(encoding="utf-8", errors="replace")
                keep_card(Path(folder), standing, model.origin, licence=licence)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
        except Exception as error:  # the hub's, the HTTP library's or the system's
            raise ValueError(f"{quoted(repo_id)} could not be uploaded: {first_line(error)}") from error
    return str(commit.commit_url)
