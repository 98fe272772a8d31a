"""The shipped model: small, described, loaded without running anything, and as good as its card says."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.tinyworld import scores as tinyworld
from janusflow.tinyworld.scenes import render

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


@pytest.mark.parametrize("kind", ["color", "shape", "background", "exists"])
def test_it_answers_most_questions(tiny_model: JanusFlow, kind: str) -> None:
    """A floor far below the card's scores, so that a broken loader or template is seen."""
    asked = [(scene, question) for scene, question in tinyworld.questions(400) if question.kind == kind][:24]
    pictures = [Image.fromarray(render(scene)) for scene, _ in asked]
    said = tiny_model.ask_batch([question.text for _, question in asked], pictures)
    right = sum(text.strip() == question.answer for text, (_, question) in zip(said, asked, strict=True))
    assert right > 0.8 * len(asked)
