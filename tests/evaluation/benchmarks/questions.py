"""What the tests of benchmarks of questions share: a model that answers by a function, and one run of a benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.mmbench import UNSTATED
from janusflow.evaluation.protocol import Benchmark, Row

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
official = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
WILD = (
    "",
    " ",
    "\n\t",
    "不知道 🙂 \u202e",
    "<html><b>no</b></html>",
    "1" * 100_000,
    "so is " * 20_000,
    "a, b. " * 17_000,
)


class Answering:
    """Stands for a pipeline: answers by a function of the question, and keeps the conversations that it was given."""

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says, self.talks = says, list[Sequence[Mapping[str, Any]]]()
        self.processor = self

    def question(self, text: str, images: int) -> str:
        placed = text.count("<image_placeholder>")
        assert placed in (0, images)
        return text if placed else "<image_placeholder>\n" * images + text

    def chat_batch(self, talks: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        self.talks += talks
        return [self.says(talk[-1]["content"]) for talk in talks]


def run(
    benchmark: Benchmark, says: Callable[[str], str], out: Path, *, whole: bool = True
) -> tuple[list[Row], dict[str, float], Answering]:
    """All of a benchmark: its rows, its scores (if `whole`, the main one among them) and the model that was asked."""
    benchmark.out = out
    model, items = Answering(says), benchmark.items()
    assert len({item.key for item in items}) == len(items)
    outputs = [output for item in items for output in benchmark.produce(model, [item], {})]
    rows = [Row(item, str(output), benchmark.judge(item, output)) for item, output in zip(items, outputs, strict=True)]
    json.dumps([[dict(row.item.data), dict(row.verdict)] for row in rows])
    benchmark.write_official([Row(row.item, row.output, {}) for row in rows])
    benchmark.write_judged(rows)
    assert benchmark.files() and all(file.is_file() for file in benchmark.files())
    scores = benchmark.scores(rows)
    assert (benchmark.main in scores) == whole
    published = set().union(*map(set, benchmark.published.values()))
    assert not whole or published <= {*scores, UNSTATED}
    assert benchmark.scores(rows * 3) == pytest.approx(scores)  # the bootstrap draws some several times
    benchmark.scores(rows[:1])
    assert benchmark.scores([]) == {}
    return rows, scores, model


def judges_anything(benchmark: Benchmark) -> None:
    """Whatever is said gets a verdict with a score from 0 to 1."""
    for item in benchmark.items():
        for answer in WILD:
            assert 0 <= benchmark.judge(item, answer)["score"] <= 1


def save_picture(file: Path, seed: int = 0) -> bytes:
    """A small JPEG; its bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.read_bytes()


def cut(file: Path) -> None:
    """Leaves the first half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
