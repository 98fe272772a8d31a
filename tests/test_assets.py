"""The shipped model: small, described, loaded without running anything, and as good as its card says."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from janusflow import JanusFlow
from janusflow.tinyworld.items import WorldSettings, to_answer

FOLDER = Path(str(files("janusflow") / "assets" / "tiny"))


def test_it_is_small_and_holds_safetensors_alone() -> None:
    found = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in found) <= 30_000_000
    assert {file.suffix for file in found} <= {".safetensors", ".json", ".jinja", ".md"}


def test_no_file_tells_where_it_was_made() -> None:
    for file in FOLDER.rglob("*.json"):
        assert not re.search(r'"(/[^/"]+)+"', file.read_text(encoding="utf-8")), file.name


def test_its_card_says_what_it_is_and_is_not() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("It is**", "It is not**", "## Training", "## Scores", "## Limits", "janusflow eval tinyworld"):
        assert words in card


@pytest.mark.parametrize("kind", ["color", "shape", "background", "exists, random"])
def test_it_answers_most_questions(tiny_model: JanusFlow, kind: str) -> None:
    """A floor far below the card's scores, so that a broken loader or template is seen."""
    asked = [item for item in to_answer(WorldSettings(questions=24)) if item.data["kind"] == kind]
    said = tiny_model.ask_batch([item.prompt for item in asked], [item.images[0] for item in asked])
    right = sum(text.strip() == item.data["answers"][0] for text, item in zip(said, asked, strict=True))
    assert right > 0.8 * len(asked)
