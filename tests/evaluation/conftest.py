"""The benchmark of numbers as one that janusflow finds."""

from __future__ import annotations

import sys

import pytest

from janusflow.evaluation import registry
from tests.evaluation import counting as counting_module


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BENCHMARKS, "counting", ("counting", "Counting"))
    monkeypatch.setitem(sys.modules, "janusflow.evaluation.benchmarks.counting", counting_module)
    counting_module.Counting.judged.clear()
