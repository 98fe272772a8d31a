"""Every recipe of the repository is sound, and the paper's recipes contain the paper's values."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from janusflow.training.config import load_config
from tests.training.paper import PAPER

RECIPES = Path(__file__).parents[3] / "recipes"
OTHERS = ("eval/", "ablation/", "parts.yaml")  # recipes of other commands; an ablation has stages of its own
TRAINED = sorted(
    file
    for file in RECIPES.rglob("*.yaml")
    if file.name.startswith("stage") or not any(part in file.as_posix() for part in OTHERS)
)


@pytest.mark.parametrize("file", TRAINED, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_recipe_is_sound(file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a black picture")
    load_config(
        file, [f"data={tmp_path}"] if file.name in ("both.yaml", "generation.yaml", "understanding.yaml") else []
    )


@pytest.mark.parametrize("name", ["both", "generation", "understanding"])
def test_a_recipe_for_ones_own_data_asks_for_it(name: str) -> None:
    with pytest.raises(ValueError, match="no source of .* is given; give data=FOLDER with records for it"):
        load_config(RECIPES / "finetune" / f"{name}.yaml", ["model=tiny"])


def test_generic_recipes_do_not_name_the_tiny_world() -> None:
    for file in (RECIPES / "finetune").glob("*.yaml"):
        assert "kind: tinyworld" not in file.read_text() and "path: tinyworld" not in file.read_text()


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_hold_the_papers_values(name: str) -> None:
    config, stage = load_config(RECIPES / "paper" / f"{name}.yaml"), PAPER[name]
    assert tuple(config.parts) == stage.parts
    assert config.steps == stage.steps
    assert config.batch_size == stage.batch_size
    assert tuple(config.data.ratios) == stage.ratios
    assert config.samples.template == stage.template
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.warmup, optimizer.schedule) == (
        stage.learning_rate,
        stage.warmup,
        "constant",
    )
    assert (optimizer.betas, optimizer.weight_decay, optimizer.clip) == ((0.9, 0.95), 0.0, 1.0)
    assert (config.pack_length, config.ema, config.samples.prompt_dropout) == (4096, 0.99, 0.1)
    assert (config.samples.time, config.samples.time_mean, config.samples.time_scale) == ("logit_normal", 0.0, 1.0)
    assert (config.loss.ar, config.loss.flow, config.loss.repa, config.loss.repa_block) == (1.0, 1.0, 1.0, 6)
    assert (config.samples.crop, optimizer.name, config.precision) == ("random", "adamw", "auto")
