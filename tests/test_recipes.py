"""Recipes: what is not one gets a sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.recipes import read_recipe


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("7", "contains a single value; expected settings"),
        ("1.5", "contains a single value; expected settings"),
        ("a: [", "cannot be read: "),
        ("\tsteps: 1", "cannot be read: "),
        ("variants:\n  no: {about: none}\n", "has a key that YAML reads as true or false; put quotes around it"),
        ("data:\n- on: 1\n", "has a key that YAML reads as true or false; put quotes around it"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"^recipe '.*recipe\.yaml' {sentence}") as error:
        read_recipe(file)
    assert "\n" not in str(error.value)


def test_a_recipe_keeps_its_references(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("steps: 4\nevery: ${steps}\n")
    assert read_recipe(file) == {"steps": 4, "every": "${steps}"}
