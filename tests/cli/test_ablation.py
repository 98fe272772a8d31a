"""`janusflow ablate` from a recipe to a page, with real trainings of a very small network."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from janusflow.cli import app
from tests.ablation.conftest import ABLATION, STAGE
from tests.training.conftest import start as start

SETTINGS = {"prompts": 1, "images": 1, "questions": 1, "features": False}


@pytest.fixture
def recipe(tmp_path: Path, start: Path) -> Path:
    stage = STAGE | {"model": {"checkpoint": str(start)}, "parts": ["aligner", "generation"]}
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(stage, sort_keys=False))
    world = {"benchmark": "tinyworld", "settings": SETTINGS, "limit": 3, "options": {"num_inference_steps": 1}}
    values = ABLATION | {
        "model": str(start),
        "stages": [{"name": "only", "recipe": "stage.yaml"}],
        "variants": {"F": {"about": ""}, "C": {"about": "", "set": ["model.understanding_encoder=vae"]}},
        "evaluations": {"world": world | {"options": {"num_inference_steps": 1, "max_new_tokens": 2}}},
        "metrics": {"drawing": {"evaluation": "world", "score": "two_object"}},
        "seeds": 1,
    }
    file = tmp_path / "ablation.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def test_the_command_trains_variants_writes_the_page_and_repeats_nothing(recipe: Path) -> None:
    words = ["ablate", str(recipe), "--out", str(recipe.parent / "out"), "--device", "cpu"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    page = recipe.parent / "out" / "paper.md"
    assert str(page) in found.output and "2 runs are finished" in page.read_text()
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and "2 of 2 runs are finished\n" in again.output and "started" not in again.output


def test_a_failed_run_ends_the_command_with_an_error_after_the_page(recipe: Path) -> None:
    words = ["ablate", str(recipe), "evaluations.world.limit=1", "metrics.drawing.score=nothing", "--only", "F"]
    found = CliRunner().invoke(app, [*words, "--out", str(recipe.parent / "out"), "--device", "cpu"])
    assert found.exit_code == 2 and "1 of 1 runs failed: F/seed-0; the same command tries again" in found.output
    assert "has no score 'nothing'" in (recipe.parent / "out" / "paper.md").read_text()


def test_a_page_is_written_without_training(recipe: Path) -> None:
    out = recipe.parent / "out"
    found = CliRunner().invoke(app, ["ablate", str(recipe), "--out", str(out), "--report"])
    assert found.exit_code == 0 and "runs are finished" in (out / "paper.md").read_text()
    assert not (out / "runs").exists()


def test_the_command_plans_and_estimates_power(recipe: Path) -> None:
    words = ["ablate", str(recipe), "--out", str(recipe.parent / "out")]
    planned = CliRunner().invoke(app, [*words, "--dry-run"])
    assert "F/seed-0: only 2 steps of 4" in planned.output and not (recipe.parent / "out").exists()
    power = CliRunner().invoke(app, [*words, "--sd", "drawing=1"])
    assert power.exit_code == 0 and power.output.splitlines()[0].split() == ["seeds", "drawing"]
    for wrong in ("0", "abc"):
        refused = CliRunner().invoke(app, [*words, "--sd", f"drawing={wrong}"])
        assert refused.exit_code == 2 and f"--sd drawing={wrong}: expected a number above 0" in refused.output
