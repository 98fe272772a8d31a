"""The recipe of the shipped model: with few steps all of it runs, resumes, and gives a model that opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from janusflow.pictograms import recipe as recipe_module
from janusflow.pictograms.build import BuildConfig, build
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.recipe import STAGES, by_recipe, run, train_together
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.training.config import load_config
from janusflow.training.config.sources import sources_of
from janusflow.training.parts.config import load_parts

RECIPES = Path(__file__).parents[2] / "recipes" / "pictograms"
LARGEST = 30e6  # bytes of what is shipped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, downloads: Downloads) -> Path:
    folder = tmp_path_factory.mktemp("data")
    build(folder, BuildConfig(shard_size=100, tints=1, workers=1), downloads)
    return folder


def test_the_whole_recipe_gives_a_small_model_that_opens_and_resumes(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    tmp_path = tmp_path / "run"
    folder = run(tmp_path, RECIPES, data, device="cpu", steps=2)
    assert (tmp_path / "cache").is_dir() and not any(elsewhere.iterdir())  # everything is in the folder of the run
    assert (folder / "licences" / "NOTICE.md").is_file()
    model = JanusFlow.from_pretrained(folder, device="cpu")
    assert model.network.dtype == torch.float32
    picture = model.generate("a fox in flat style", num_inference_steps=2)[0]
    assert picture.size == (64, 64) and isinstance(model.ask("What is this?", picture, max_new_tokens=4), str)
    before = (folder / "model.safetensors").read_bytes()
    assert (run(tmp_path, RECIPES, data, device="cpu", steps=2) / "model.safetensors").read_bytes() == before
    for stage in STAGES:
        assert (tmp_path / stage / "export" / "model.safetensors").is_file()


def test_processes_train_a_stage_together_and_an_error_of_theirs_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch: what would be started says so, and fails or not."""
    said, real = tmp_path / "said", recipe_module.subprocess.Popen
    for status in (0, 3):
        program = f"import sys; open({str(said)!r}, 'w').write(' '.join(sys.argv[1:])); sys.exit({status})"

        def start(command: list[str], program: str = program, **options: Any) -> Any:
            return real([command[0], "-c", program, *command[1:]], **options)

        monkeypatch.setattr(recipe_module.subprocess, "Popen", start)
        if status:
            with pytest.raises(
                ChildProcessError, match=r"stage1\.yaml ended with status 3; the same command continues"
            ):
                train_together(RECIPES / "stage1.yaml", ["steps=2"], 2, "cpu")
        else:
            train_together(RECIPES / "stage1.yaml", ["steps=2"], 2, "cpu")
    words = said.read_text().split()
    assert "--nproc-per-node=2" in words and words[-4:] == ["steps=2", "--resume", "--device", "cpu"]
    assert words[words.index("janusflow.cli") :][1:3] == ["train", str(RECIPES / "stage1.yaml")]


def test_the_model_of_the_recipe_fits_into_the_package() -> None:
    from janusflow.model import JanusFlowForConditionalGeneration
    from janusflow.training.parts.vae import new_vae

    parts = load_parts(RECIPES / "parts.yaml")
    sizes = parts.sizes(parts.tokenizer.vocabulary)
    with torch.device("meta"):
        networks = [JanusFlowForConditionalGeneration(sizes)]
    networks.append(new_vae(parts.vae, sizes))
    assert 2 * sum(p.numel() for network in networks for p in network.parameters()) <= LARGEST - 3e5  # files of text


def test_the_stages_are_those_of_the_paper() -> None:
    found = [load_config(RECIPES / f"{stage}.yaml", [f"out=runs/{stage}"]) for stage in STAGES]
    assert [set(config.parts) for config in found] == [
        {"aligner", "generation"},
        {"aligner", "generation", "llm"},
        {"aligner", "generation", "llm", "tower"},
    ]
    for config in found:
        assert config.samples.prompt_dropout == 0.1 and (config.samples.time_mean, config.samples.time_scale) == (0, 1)
        for source in (one for given in sources_of(config.data).values() for one in given):
            assert source.kind in ("parquet", "tinyworld") and not source.anchor


def test_an_override_names_its_recipe() -> None:
    found = by_recipe(["stage2.steps=9", "parts.vae.fit.steps=3"])
    assert found["stage2"] == ["steps=9"] and found["parts"] == ["vae.fit.steps=3"] and not found["stage1"]
    with pytest.raises(ValueError, match="begin it with one of parts, stage1, stage2, stage3"):
        by_recipe(["steps=9"])
