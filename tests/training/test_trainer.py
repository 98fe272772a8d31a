"""The loop learns, and what should not matter does not: packs, workers, recomputation, compiling."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from janusflow import JanusFlow
from tests.training.conftest import TINYWORLD, close, curve, quietly, settings, streaming, values, weights


def test_it_learns_and_the_export_opens(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path, steps=40, batch_size=12, optimizer={"learning_rate": 3e-3}, ema=0.9)
    folder = quietly(config)
    rows = curve(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert all(0 < row["fill"] <= 1 and row["tokens"] / (row["fill"] * 256) % 1 < 1e-6 for row in rows)
    for name, share in (("ar", 0.75), ("flow", 1.0), ("repa", 0.5)):
        first, last = (sum(row[name] for row in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last < share * first if first > 0 else last < first
    quietly(settings(folder, tmp_path / "next", steps=1, optimizer={"learning_rate": 0.0}))
    middle = (rows[0]["repa"] + rows[-1]["repa"]) / 2
    assert curve(tmp_path / "next")[0]["repa"] < middle, "the next stage goes on with the REPA head"
    model = JanusFlow.from_pretrained(folder, device="cpu")
    picture = model.generate("a star", num_inference_steps=1)
    assert picture[0].size == (64, 64)
    assert isinstance(model.ask("what color is the star?", picture, max_new_tokens=4), str)


def test_only_the_chosen_parts_learn(start: Path, tmp_path: Path) -> None:
    folder = quietly(settings(start, tmp_path, parts=["aligner", "generation"], steps=2))
    before, after = weights(start), weights(folder)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(
        name.startswith(("generation_", "understanding_encoder.aligner", "understanding_encoder.begin"))
        for name in moved
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_continue_exactly(start: Path, tmp_path: Path, workers: int) -> None:
    given = streaming(tmp_path, workers)
    quietly(settings(start, tmp_path / "whole", data=given, steps=5))
    for steps in (3, 5):
        quietly(settings(start, tmp_path / "parts", data=given, steps=steps), resume=True)
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_how_samples_fall_into_packs_changes_nothing(start: Path, tmp_path: Path) -> None:
    for length in (100, 2000):
        quietly(settings(start, tmp_path / str(length), steps=3, pack_length=length))
    assert close(values(tmp_path / "100"), values(tmp_path / "2000"))


def test_activation_checkpointing_and_workers_change_nothing(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = LlamaMLP.forward, 0

    def counted(module: LlamaMLP, states: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(module, states)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    quietly(settings(start, tmp_path / "plain", steps=3))
    once, calls = calls, 0
    data = {
        "understanding": TINYWORLD,
        "generation": TINYWORLD,
        "text": TINYWORLD,
        "ratios": [{"understanding": 2, "generation": 3, "text": 1}],
        "workers": 1,
    }
    quietly(settings(start, tmp_path / "other", steps=3, activation_checkpointing=True, data=data))
    assert calls == 2 * once > 0
    assert close(values(tmp_path / "other"), values(tmp_path / "plain"))


def test_compiled_blocks_change_nothing(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a compiler, which is not needed here: what is traced runs as it is."""
    compiled: list[str] = []
    as_it_is = torch.nn.Module.compile

    def traced(block: torch.nn.Module, **options: Any) -> None:
        compiled.append(type(block).__name__)
        as_it_is(block, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    monkeypatch.setenv("CXX", sys.executable)
    for name in ("plain", "compiled"):
        quietly(settings(start, tmp_path / name, steps=3, compile=name == "compiled"))
    assert set(compiled) == {"LlamaDecoderLayer", "SiglipEncoderLayer", "ConvNextBlock"}
    assert close(values(tmp_path / "compiled"), values(tmp_path / "plain"))
    compiled.clear()
    monkeypatch.setenv("CXX", "nosuch-compiler")
    with pytest.warns(UserWarning, match="no C[+][+] compiler was found, so nothing is compiled"):
        quietly(settings(start, tmp_path / "without", steps=1, compile=True))
    assert not compiled
