"""The moving average of the weights: its decay, its share of the starting weights, and its export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from janusflow.training import trainer
from janusflow.training.ema import Ema
from janusflow.training.trainer import take_step
from tests.training.conftest import curve, quietly, settings, weights


def test_warming_up_the_decay_keeps_little_of_the_start(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path, ema=0.99, ema_warmup=True)
    assert [config.ema_decay(step) for step in (0, 1, 8, 10_000)] == [0.1, 2 / 11, 0.5, 0.99]
    assert config.start_share(40) < 1e-6 < 0.66 < replace(config, ema_warmup=False).start_share(40) < 0.67
    assert replace(config, ema=0.0).start_share(1) == 0


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_decay_and_its_share_of_the_start_is_reported(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, warmup: bool
) -> None:
    seen: list[torch.Tensor] = []

    def watched(run: Any, found: Any) -> Any:
        name = "network.language_model.norm.weight"
        weight = dict(run.objective.named_parameters())[name]
        seen.extend([weight.detach().clone()] if not seen else [])
        losses = take_step(run, found)
        seen.append(weight.detach().clone())
        assert run.ema.values[name].dtype == torch.float32
        return losses

    monkeypatch.setattr(trainer, "take_step", watched)
    folder = quietly(settings(start, tmp_path, steps=3, ema=0.9, ema_warmup=warmup))
    decays = [0.1, 2 / 11, 0.25] if warmup else [0.9] * 3
    expected = seen[0]
    for decay, weight in zip(decays, seen[1:], strict=True):
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(weights(folder)["language_model.norm.weight"], expected)
    share = decays[0] * decays[1] * decays[2]
    assert curve(tmp_path)[-1]["start_share"] == pytest.approx(share)
    percent = "0.455 %" if warmup else "72.9 %"
    assert f"| share of the starting weights in the average | {percent} |" in (folder / "README.md").read_text()
    said = capsys.readouterr().err
    assert f"{percent} of the exported weights are still the starting weights" in said
    assert (f"warning: {percent} of the exported weights" in said and "give ema_warmup=true" in said) != warmup


def test_the_average_has_a_constant_decay() -> None:
    layer = torch.nn.Linear(3, 2)
    ema = Ema(layer)
    expected = layer.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            layer.weight.add_(1.0)
        ema.update(0.9)
        expected = 0.9 * expected + 0.1 * layer.weight.detach()
    torch.testing.assert_close(ema.values["weight"], expected)


def test_the_export_holds_the_averages(start: Path, tmp_path: Path) -> None:
    exported = {
        ema: quietly(settings(start, tmp_path / str(ema), steps=1, ema=ema, optimizer={"learning_rate": 0.01}))
        for ema in (0.0, 0.5, 1.0)
    }
    for file in ("model.safetensors", "repa_head.safetensors"):
        now, between, before = (load_file(exported[ema] / file) for ema in (0.0, 0.5, 1.0))
        assert max(float((now[name] - before[name]).abs().max()) for name in now) > 1e-3
        for name, value in between.items():
            torch.testing.assert_close(value, (now[name] + before[name]) / 2, atol=1e-6, rtol=1e-5)
    for name, value in weights(start).items():
        assert torch.equal(weights(exported[1.0])[name], value), name
