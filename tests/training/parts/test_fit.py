"""The loop: it learns, it averages, and a run that was killed continues to the bit."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from janusflow.training.parts.fit import FitConfig, fit, step_generator
from tests.processes import fork
from tests.training.conftest import BreakingFile, full_disk

CONFIG = FitConfig(steps=12, learning_rate=0.05, warmup=2, ema=0.9, precision="float32", save_every=4)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def losses(module: nn.Module, step: int) -> dict[str, Tensor]:
    x = torch.randn(16, 4, generator=step_generator(0, step))
    return {"loss": (module(x) - x.sum(dim=1, keepdim=True)).square().mean()}


def curve(folder: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {int(row["step"]): row["loss"] for row in rows}


def test_it_learns_and_gives_back_the_average(tmp_path: Path) -> None:
    start = model()
    module = model()
    average = fit(module, losses, CONFIG, tmp_path, title="test")
    found = curve(tmp_path)
    assert list(found) == list(range(12))
    assert found[11] < 0.5 * found[0]
    final = dict(module.named_parameters())
    for name, value in average.named_parameters():
        assert not torch.equal(value, final[name])
        assert not torch.equal(value, dict(start.named_parameters())[name])


def test_the_average_decays_at_a_constant_rate(tmp_path: Path) -> None:
    module, seen = model(), []

    def watched(m: nn.Module, step: int) -> dict[str, Tensor]:
        seen.append([p.detach().clone() for p in m.parameters()])
        return losses(m, step)

    average = fit(module, watched, CONFIG, tmp_path, title="test")
    seen.append([p.detach().clone() for p in module.parameters()])
    expected = seen[1]
    for values in seen[2:]:
        expected = [0.9 * e + 0.1 * v for e, v in zip(expected, values, strict=True)]
    for found, wanted in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_an_interrupted_run_continues_to_the_bit(tmp_path: Path) -> None:
    whole = fit(model(), losses, CONFIG, tmp_path / "whole", title="test")

    def interrupted(m: nn.Module, step: int) -> dict[str, Tensor]:
        if step == 6:
            raise KeyboardInterrupt
        return losses(m, step)

    with pytest.raises(KeyboardInterrupt):
        fit(model(), interrupted, CONFIG, tmp_path / "parts", title="test")
    again = fit(model(), losses, CONFIG, tmp_path / "parts", title="test")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_killed_run_continues_to_the_bit(tmp_path: Path) -> None:
    """SIGKILL strikes anywhere, also while a checkpoint is being written."""
    config = replace(CONFIG, steps=300, save_every=1)
    whole = fit(model(), losses, config, tmp_path / "whole", title="test")
    state = tmp_path / "killed" / "state.pt"
    for moment in (0.0, 0.1, 0.2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        run = fork(fit, model(), losses, config, state.parent, said=tmp_path / "said", title="test")
        while run.is_alive() and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(moment)
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
    again = fit(model(), losses, config, state.parent, title="test")
    assert curve(state.parent) == curve(tmp_path / "whole")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    def bad(m: nn.Module, step: int) -> dict[str, Tensor]:
        terms = losses(m, step)
        return {"loss": terms["loss"] * float("nan")} if step == 9 else terms

    with pytest.raises(ValueError, match="the loss of step 9 is nan"):
        fit(model(), bad, CONFIG, tmp_path, title="test")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 8


def test_a_checkpoint_that_does_not_fit_gives_one_sentence(tmp_path: Path) -> None:
    fit(model(), losses, CONFIG, tmp_path, title="test")
    state = tmp_path / "state.pt"
    with pytest.raises(ValueError, match=r"state.pt is damaged, or from another version \(.*\); without that file"):
        fit(nn.Sequential(model(), nn.Linear(1, 1)), losses, CONFIG, tmp_path, title="test")
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"state.pt is damaged, or from another version \(.*\); without that file"):
        fit(model(), losses, CONFIG, tmp_path, title="test")


def test_a_full_disk_gives_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, stream: save(state, BreakingFile(stream, full_disk)))
    with pytest.raises(OSError, match=r"state.pt could not be written \(.*No space left on device\); the last check"):
        fit(model(), losses, CONFIG, tmp_path, title="test")


def test_schedules() -> None:
    config = FitConfig(steps=100, learning_rate=1.0, warmup=10, schedule="constant")
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(50) == config.rate(99) == pytest.approx(1.0)
    cosine = FitConfig(steps=100, learning_rate=1.0, warmup=0, schedule="cosine")
    assert cosine.rate(50) == pytest.approx(0.01 + 0.99 * 0.5)
    decay = FitConfig(steps=100, learning_rate=1.0, warmup=0, schedule="decay")
    assert decay.rate(74) == pytest.approx(1.0)
    assert decay.rate(99) < 0.06


def test_a_gradient_that_is_not_finite_ends_before_the_weights(tmp_path: Path) -> None:
    def steep(m: nn.Module, step: int) -> dict[str, Tensor]:
        terms = losses(m, step)
        root = (terms["loss"] * 0).abs().sqrt()  # 0, of slope infinite times 0
        return {**terms, "loss": terms["loss"] + root} if step == 5 else terms

    with pytest.raises(ValueError, match="the gradient of step 5 is nan; the last checkpoint is intact"):
        fit(model(), steep, CONFIG, tmp_path, title="test")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_and_ends(tmp_path: Path, number: int, end: type[BaseException]) -> None:
    def told(m: nn.Module, step: int) -> dict[str, Tensor]:
        if step == 5:
            signal.raise_signal(number)
        return losses(m, step)

    with pytest.raises(end) as ended:
        fit(model(), told, CONFIG, tmp_path / "parts", title="test")
    assert getattr(ended.value, "code", 0) == 0 and len(curve(tmp_path / "parts")) == 6
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 6
    whole = fit(model(), losses, CONFIG, tmp_path / "whole", title="test")
    again = fit(model(), losses, CONFIG, tmp_path / "parts", title="test")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_fit_saves_after_some_seconds_too(tmp_path: Path) -> None:
    def interrupted(m: nn.Module, step: int) -> dict[str, Tensor]:
        if step == 3:
            raise KeyboardInterrupt
        return losses(m, step)

    with pytest.raises(KeyboardInterrupt):
        fit(model(), interrupted, replace(CONFIG, save_every=100, save_seconds=0.0), tmp_path, title="test")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
