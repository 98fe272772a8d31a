"""A run reads its items once and hashes each picture once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation import registry
from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import digests
from janusflow.evaluation.run import eval_run as run_module
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation import counting

read: list[str] = []


class Looking(counting.Counting):
    """Questions about pictures, and pictures to generate."""

    def items(self) -> list[Item]:
        read.append("items")
        pictures = [Image.new("L", (4, 4), n) for n in range(10)]
        return [replace(item, images=(pictures[item.seed],)) for item in super().items()]

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        return {"score": 1.0}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return {"overall": 1.0}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each item's pictures were hashed: those of its question, and the one that was generated."""
    found: Counter[str] = Counter()
    monkeypatch.setitem(registry.BENCHMARKS, "looking", ("looking", "Looking"))
    monkeypatch.setitem(sys.modules, "janusflow.evaluation.benchmarks.looking", sys.modules[__name__])

    def content(picture: Any, before: Any = digests._content) -> str:
        found[f"shown: {picture.getpixel((0, 0))}"] += 1
        return str(before(picture))

    def judged(*given: Any, before: Any = digests.judged_digest) -> str:
        found[f"made: {given[1].key}"] += 1
        return str(before(*given))

    monkeypatch.setattr(digests, "_content", content)
    monkeypatch.setattr(run_module, "judged_digest", judged)
    read.clear()
    return found


class Model(counting.Model):
    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        return ["yes"] * len(conversations)


@pytest.mark.parametrize("mode", ["full", "score"])
def test_items_are_read_once_and_each_picture_is_hashed_once(tmp_path: Path, hashed: Counter[str], mode: Any) -> None:
    request = EvalRequest("looking", tmp_path)
    if mode == "score":
        evaluate(replace(request, mode="generate"), model=Model())
        read.clear()
        hashed.clear()
    assert evaluate(replace(request, mode=mode), model=Model())["judged"] == 10
    assert read == ["items"] and set(hashed.values()) == {1} and len(hashed) == 20


def test_a_rerun_reads_and_hashes_once_too(tmp_path: Path, hashed: Counter[str]) -> None:
    request = EvalRequest("looking", tmp_path, limit=4)
    evaluate(request, model=Model())
    read.clear()
    hashed.clear()
    evaluate(replace(request, limit=None), model=Model())
    assert read == ["items"] and set(hashed.values()) == {1} and len(hashed) == 20


def test_a_report_names_all_that_a_continued_run_was_made_with(tmp_path: Path, hashed: Counter[str]) -> None:
    request = EvalRequest("looking", tmp_path, batch_size=2, mode="generate", limit=4)
    evaluate(request, model=Model())
    evaluate(replace(request, batch_size=3), model=Model())  # nothing is left to make
    evaluate(replace(request, batch_size=4, limit=None), model=Model())
    report = evaluate(replace(request, batch_size=5, mode="score", limit=None))
    assert report["used"]["batch_size"] == [2, 4] and report["used"]["device"] == "cpu"
