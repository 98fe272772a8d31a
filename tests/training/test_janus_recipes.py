"""The recipes of Janus: the stages of both tech reports, and a small Janus next to the small JanusFlow."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.config import tiny
from janusflow.training.config import load_config
from janusflow.training.dryrun import describe
from janusflow.training.parts.config import load_parts

RECIPES = Path(__file__).parents[2] / "recipes"
STAGES = ("stage1", "stage2", "stage3")
REPORTS = {  # rate, schedule, weight decay, warm-up, steps, batch, and understanding : text : generation of each stage
    "janus": [
        (1e-3, "cosine", 0.0, 300, 10_000, 256, (1, 0, 1)),
        (1e-4, "constant", 0.0, 5_000, 180_000, 512, (2, 3, 5)),
        (2e-5, "constant", 0.1, 0, 24_000, 256, (7, 3, 10)),
    ],
    "janus_pro": [
        (1e-3, "constant", 0.0, 600, 20_000, 256, (1, 0, 3)),
        (1e-4, "constant", 0.0, 5_000, 360_000, 512, (2, 3, 5)),
        (4e-5, "constant", 0.0, 0, 80_000, 128, (5, 1, 4)),
    ],
}
PARTS = [{"aligner", "generation"}, {"aligner", "generation", "llm"}, {"aligner", "generation", "llm", "tower"}]


@pytest.mark.parametrize("report", REPORTS)
def test_the_stages_are_those_of_the_report(report: str) -> None:
    parts = {"stage1": ["model.llm=somewhere"]}
    for stage, learns, wanted in zip(STAGES, PARTS, REPORTS[report], strict=True):
        config = load_config(RECIPES / report / f"{stage}.yaml", parts.get(stage, []))
        optimizer, ratio = config.optimizer, config.data.ratios[-1]
        found = (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay, optimizer.warmup, config.steps)
        assert (*found, config.batch_size, (ratio.understanding, ratio.text, ratio.generation)) == wanted
        assert set(config.parts) == learns and config.samples.prompt_dropout == 0.1
        assert config.loss.ar == config.loss.codes == 1 and (optimizer.betas, optimizer.clip) == ((0.9, 0.95), 1.0)
        assert config.samples.template == ("chat" if stage == "stage3" else "pretraining")


@pytest.mark.parametrize("report", REPORTS)
def test_a_dry_run_needs_nothing_from_the_hub(report: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = describe(load_config(RECIPES / report / "stage1.yaml", ["model.llm=somewhere"]))
    assert text.startswith("model: Janus, losses ar 1, codes 1\n")


def test_the_small_janus_differs_from_the_small_janusflow_only_in_its_codec_and_its_loss() -> None:
    for stage in STAGES:
        codes, flow = (load_config(RECIPES / folder / f"{stage}.yaml") for folder in ("janus_pictograms", "pictograms"))
        for name in ("parts", "steps", "batch_size", "pack_length", "ema", "seed", "optimizer", "data", "samples"):
            assert getattr(codes, name) == getattr(flow, name), (stage, name)
        assert (codes.loss.ar, codes.loss.codes) == (flow.loss.ar, flow.loss.flow)
    parts = load_parts(RECIPES / "janus_pictograms" / "parts.yaml")
    assert parts.start == load_parts(RECIPES / "pictograms" / "parts.yaml").out + "/export" and parts.vq is not None
    assert 2 ** (len(parts.vq.channels) - 1) == tiny().vision_config.patch_size
    tune = load_config(RECIPES / "janus_pictograms" / "tune.yaml")
    assert all(source.anchor for source in (*tune.data.generation, *tune.data.understanding))
    assert load_parts(RECIPES / "janus" / "parts.yaml").vq == parts.vq
