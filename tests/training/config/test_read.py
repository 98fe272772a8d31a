"""Recipes and overrides are read as they are meant, and errors name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.training.config import load_config
from tests.training.config.conftest import write


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    overrides = ["optimizer.learning_rate=1e-4", "data.text.0.weight=2", "steps=7", "model=runs/y", "lora.rank=4"]
    config = load_config(write(tmp_path), overrides)
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.text[0].weight == 2
    assert (config.steps, config.model.checkpoint, config.lora.rank) == (7, "runs/y", 4)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps is 'xxx") as told:
        load_config(write(tmp_path), [f"steps={'x' * 9000}"])
    assert len(str(told.value)) < 400


def test_files_and_overrides_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1, 2")
    with pytest.raises(ValueError, match="cannot be read"):
        load_config(tmp_path / "broken.yaml")
    for override, words in (
        ("steps", "is not of the form key=value"),
        ("=5", "is not of the form key=value"),
        ("data.text.7.kind=x", "does not fit the recipe: it has no such item"),
    ):
        with pytest.raises(ValueError, match=f"override {override!r} {words}"):
            load_config(write(tmp_path), [override])


def test_a_recipe_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    file, good = tmp_path / "recipe.yaml", write(tmp_path).read_text()
    levels = "\n".join(["l0: &l0 [1]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))])
    references = "\n".join(["r0: x", *(f"r{n}: '{(chr(36) + f'{{r{n - 1}}}') * 10}'" for n in range(1, 9))])
    for added, words in (
        (levels, "its aliases make it .* values"),
        (references, "80 references"),
        ("odd: &odd [*odd]", "holds itself"),
        ("odd: ${no.such.key}", "the recipe has a reference that cannot be read"),
    ):
        file.write_text(f"{good}\n{added}\n")
        with pytest.raises(ValueError, match=words) as told:
            load_config(file)
        assert "\n" not in str(told.value)
