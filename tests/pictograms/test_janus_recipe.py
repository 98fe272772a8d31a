"""The small Janus: with few steps its codec is trained, it is put together from a JanusFlow's parts, and it opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from janusflow import JanusFlow
from janusflow.pictograms.build import BuildConfig, build
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.recipe import run
from janusflow.training.config import load_config
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.trainer import train
from tests.training.parts.test_parts import small

RECIPES = Path(__file__).parents[2] / "recipes" / "janus_pictograms"


def test_the_recipe_of_a_small_janus_runs_and_its_model_is_tuned(tmp_path: Path, downloads: Downloads) -> None:
    data = tmp_path / "data"
    build(data, BuildConfig(shard_size=100, tints=1, workers=1), downloads)
    start = pretrain(small(tmp_path / "start"), device="cpu")
    codec = ["parts.vq.channels=[32,32,32,32]", "parts.vq.codes=64"]
    folder = run(tmp_path, RECIPES, data, overrides=[f"parts.start={start}", *codec], device="cpu", steps=2)
    model: Any = JanusFlow.from_pretrained(folder, device="cpu")
    assert model.family.name == "Janus" and model.network.dtype == torch.float32
    picture = model.generate("a fox in flat style", progress=False)[0]
    assert picture.size == (64, 64) and isinstance(model.ask("What is this?", picture, max_new_tokens=4), str)
    changes = [f"model={folder}", f"data={data}", f"out={tmp_path / 'tuned'}", "steps=2", "batch_size=6"]
    changes += [f"data.{task}.0.path={data}" for task in ("understanding", "generation")]
    export = train(load_config(RECIPES / "tune.yaml", [*changes, "data.workers=0"]), device="cpu", progress_bar=False)
    assert JanusFlow.from_pretrained(export, device="cpu").family.name == "Janus"
