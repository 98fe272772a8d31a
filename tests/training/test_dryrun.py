"""A dry run counts what learns and estimates what it costs, without loading weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow import JanusFlow
from janusflow.training.config import load_config
from janusflow.training.dryrun import describe, estimate
from tests.training.conftest import settings

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_dry_run_counts_what_learns_and_loads_nothing(tmp_path: Path) -> None:
    preset = ["model.checkpoint=null", "model.preset=janusflow_1b", "model.processor=x"]
    stage1 = estimate(load_config(RECIPES / "paper" / "stage1.yaml"))
    stage2 = estimate(load_config(RECIPES / "paper" / "stage2.yaml", preset))
    stage3 = estimate(load_config(RECIPES / "paper" / "stage3.yaml", preset))
    assert set(stage1.learning) == {"aligner", "generation", "repa"}
    assert set(stage2.frozen) == {"tower"}
    pool_head = 12_595_200  # SigLIP's, which is never run
    for found in (stage1, stage2, stage3):
        counted = sum(found.learning.values()) + sum(found.frozen.values()) - found.learning["repa"]
        assert counted == 2_046_367_504
    assert stage3.frozen == {"tower": pool_head}
    assert stage1.flops < stage2.flops
    assert stage2.memory(8) < stage2.memory(1)
    only_talks = [*preset, "data.ratios=[{understanding: 1, generation: 0, text: 0}]"]
    seeing = estimate(load_config(RECIPES / "paper" / "stage3.yaml", only_talks))
    blind = estimate(load_config(RECIPES / "paper" / "stage3.yaml", [*only_talks, "parts=[aligner,generation,llm]"]))
    assert seeing.activations > 1.05 * blind.activations, "a tower that learns keeps its activations"
    lora = estimate(
        load_config(RECIPES / "paper" / "stage3.yaml", [*preset, "lora.rank=16", "parts=[aligner,generation,llm]"])
    )
    assert "llm" not in lora.learning
    assert 1e6 < lora.learning["adapters"] < 5e7
    assert lora.state < stage3.state / 2
    text = describe(load_config(RECIPES / "paper" / "stage1.yaml"))
    for words in ("learning:", "frozen:", "tokens per step", "FLOPs per step", "on 64 GPUs"):
        assert words in text
    assert "replay" not in text
    assert text.count("not there yet: ") == len({line for line in text.splitlines() if "not there yet" in line}) > 0
    worlds = [f"data.{task}=[{{kind: tinyworld}}]" for task in ("understanding", "generation")]
    finetuning = load_config(RECIPES / "finetune" / "both.yaml", ["model=tiny", *worlds])
    assert "not there yet" not in describe(finetuning)
    replayed = [worlds[0], "data.generation=[{kind: replay, path: tinyworld, images: 300}]"]
    assert "generated before the first step: 300 pictures (replay)" in describe(
        load_config(RECIPES / "finetune" / "both.yaml", replayed)
    )
    stage3_kept = ["model.checkpoint=tiny", "data.understanding.0.anchor=true", "loss.repa=0"]
    kept = load_config(RECIPES / "paper" / "stage3.yaml", stage3_kept)
    assert (
        estimate(kept).memory(64)
        > estimate(kept).anchor
        == 4 * sum(p.numel() for p in JanusFlow.from_pretrained("tiny").network.parameters())
    )
    assert "anchor (the weights before the run" in describe(kept)


def test_a_dry_run_counts_frozen_parameters_as_frozen(start: Path, tmp_path: Path) -> None:
    free = estimate(settings(start, tmp_path))
    frozen = estimate(settings(start, tmp_path, freeze=["language_model.", "understanding_encoder.begin"]))
    llm = JanusFlow.from_pretrained(start, device="cpu").network
    count, head = (sum(p.numel() for p in part.parameters()) for part in (llm.language_model, llm.lm_head))
    assert free.learning["llm"] == count + head and frozen.learning["llm"] == head
    assert frozen.frozen["llm"] == count and frozen.learning["aligner"] == free.learning["aligner"] - 32
    assert free.state - frozen.state == 4 * 4 * (count + 32), "no gradients, moments and average"
    blocks = sum(p.numel() for p in llm.language_model.layers.parameters())
    assert free.gathered - frozen.gathered == 2 * (count - blocks + 32), "the blocks are never gathered"
    with pytest.raises(ValueError, match="freeze has 'begin', with which no parameter's name begins"):
        estimate(settings(start, tmp_path, freeze=["begin"]))
