"""What commands share: the collector is off only while a model is opened."""

from __future__ import annotations

import gc

import pytest

from janusflow.cli.options import collector_paused, open_model
from janusflow.pipelines.base import Pipeline


def test_the_collector_rests_while_a_model_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: seen.append(gc.isenabled()))
    open_model("tiny")
    assert seen == [False] and gc.isenabled()


def test_the_collector_is_as_it_was_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), collector_paused():
        raise ValueError("broken")
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
