"""Ablations of two variants: with trainings and evaluations that only write down that they happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from janusflow.ablation import execution as module
from janusflow.ablation.config import load_ablation
from janusflow.ablation.runs import Run, runs_of
from janusflow.evaluation.request import EvalRequest
from janusflow.training.config import TrainConfig

STAGE = {
    "out": "runs/stage",
    "parts": ["aligner", "generation", "llm"],
    "steps": 2,
    "batch_size": 4,
    "pack_length": 256,
    "precision": "float32",
    "model": {"checkpoint": "tiny"},
    "data": {
        "understanding": [{"kind": "tinyworld"}],
        "generation": [{"kind": "tinyworld"}],
        "ratios": [{"understanding": 1, "generation": 1, "text": 0}],
        "workers": 0,
    },
    "loss": {"repa_block": 2},
    "watch": {"tensorboard": False, "curves": False},
    "optimizer": {"learning_rate": 1e-3},
}
ABLATION: dict[str, Any] = {
    "title": "Two variants",
    "baseline": "F",
    "seeds": 2,
    "model": "tiny",
    "stages": [
        {"name": "first", "recipe": "stage.yaml"},
        {"name": "second", "recipe": "stage.yaml", "set": ["steps=8"]},
    ],
    "variants": {
        "F": {"about": "all of it"},
        "A": {"about": "no REPA", "set": ["loss.repa=0"], "expects": {"drawing": "worse"}},
        "D": {"about": "a quarter", "share": 0.25, "without": ["first"]},
    },
    "evaluations": {"world": {"benchmark": "tinyworld", "settings": {"prompts": 1, "images": 1, "questions": 1}}},
    "metrics": {
        "drawing": {"evaluation": "world", "score": "drawing", "paper": {"F": 2.0, "A": 1.0}, "paper_title": "CLIP"},
    },
}


def write(folder: Path, **changes: Any) -> Path:
    """The file of an ablation next to its stage."""
    (folder / "stage.yaml").write_text(yaml.safe_dump(STAGE, sort_keys=False))
    file = folder / "ablation.yaml"
    file.write_text(yaml.safe_dump({**ABLATION, **changes}, sort_keys=False))
    return file


def opened(folder: Path, **options: Any) -> list[Run]:
    file = folder / "ablation.yaml"
    return runs_of(load_ablation(file), folder, folder / "out", **options)


Journal = list[tuple[str, ...]]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """What was trained and evaluated; the score of a run is its seed, and 10 for F."""
    return pretended(monkeypatch.setattr)


def pretended(replace: Callable[[Any, str, Any], None]) -> Journal:
    found: Journal = []

    def train(config: TrainConfig, **options: Any) -> Path:
        out = Path(config.out)
        found.append(("train", f"{out.parents[1].name}/{out.parent.name}", out.name, str(config.steps)))
        (out / "export").mkdir(parents=True, exist_ok=True)
        (out / "checkpoints").mkdir(exist_ok=True)
        return out / "export"

    def evaluate(request: EvalRequest) -> dict[str, Any]:
        run = request.out.parents[1]
        found.append(("evaluate", f"{run.parent.name}/{run.name}", request.out.name, request.model))
        seed = float(run.name.removeprefix("seed-"))
        scores = {"drawing": seed**2 + 10 * (run.parent.name == "F") + seed * (run.parent.name == "A")}
        return {"scores": scores, "judged": 2, "items": 2}

    replace(module, "train", train)
    replace(module, "evaluate", evaluate)
    return found
