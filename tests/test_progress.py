"""A bar on a terminal or in a notebook, lines elsewhere, and records of the package's logger."""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Callable

import pytest

from janusflow import JanusFlow
from janusflow.progress import ProgressBar, progress_bar, say


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
    assert ("generating" in shown.err and "4/4" in shown.err) == seen
    assert bool(shown.err) == seen and not shown.out


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is this much later at every look."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


def test_without_a_terminal_there_is_a_line_every_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress_bar("generating", 10, clock=ticking(12.0)) as advance:
        for _ in range(10):
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "generating 3 of 10, 0:01:24 left",
        "generating 6 of 10, 0:00:48 left",
        "generating 9 of 10, 0:00:12 left",
        "generating 10 of 10",
    ]
    with progress_bar("reading", None, clock=ticking(16.0)) as advance:
        for _ in range(4):
            advance()
    assert capsys.readouterr().err.splitlines() == ["reading 2", "reading 4"]


def test_without_a_terminal_a_short_job_says_nothing_unless_its_end_is_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for keep, lines in ((False, []), (True, ["step 5 of 5: loss 0.2"])):
        with ProgressBar("step", 5, done=3, keep=keep, clock=ticking(1.0)) as bar:
            bar.update(4, "loss 0.3")
            bar.update(5, "loss 0.2")
        assert capsys.readouterr().err.splitlines() == lines


class ZMQInteractiveShell:
    """What IPython's shell is called in a notebook."""


def test_in_a_notebook_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    with ProgressBar("generating", 4, done=1, keep=True, clock=ticking(1.0)) as bar:
        bar.advance()
        bar.update(4, "loss 0.25")
    shown = capsys.readouterr()
    assert "generating: 100%" in shown.err and "4/4" in shown.err and "loss 0.25" in shown.err
    with ProgressBar("generating", 4, shown=False) as bar:
        bar.advance()
    assert not capsys.readouterr().err


def test_lines_are_records_of_the_janusflow_logger(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    say("printed only")
    assert not caplog.records and capsys.readouterr().err == "printed only\n"
    with caplog.at_level(logging.INFO, "janusflow"):
        say("printed and logged")
    assert [record.getMessage() for record in caplog.records] == ["printed and logged"]
    assert capsys.readouterr().err == "printed and logged\n"


def test_a_line_that_a_handler_writes_to_the_console_is_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("janusflow"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        logger.setLevel(logging.INFO)
        say("once")
        assert capsys.readouterr().err == "once\n"
        logger.setLevel(logging.WARNING)
        say("not at all")
        say("skipped", logging.WARNING)
        assert capsys.readouterr().err == "skipped\n"
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
    assert any(isinstance(one, logging.NullHandler) for one in logger.handlers)
