"""A bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import pytest

from janusflow import JanusFlow


@pytest.mark.parametrize(
    ("terminal", "wanted", "seen"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_painting_shows_a_bar_on_a_terminal_alone(
    small_model: JanusFlow,
    terminal: bool,
    wanted: bool,
    seen: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
    small_model.generate(
        ["a star", "a circle"], num_inference_steps=2, batch_size=1, output_type="latent", progress=wanted
    )
    shown = capsys.readouterr()
    assert ("painting" in shown.err and "4/4" in shown.err) == seen
    assert bool(shown.err) == seen and not shown.out
