"""The script for a GPU runs on a CPU at small size, so that a lent GPU's minutes are not spent on its mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import fork, run_script

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_engine.py"


@pytest.mark.skipif("CI" in os.environ, reason="a minute of one core")
def test_every_row_is_measured(tmp_path: Path) -> None:
    words = ["--small", "--device", "cpu", "--repeats", "1", "--compile", "off"]
    run = fork(run_script, SCRIPT, words, said=tmp_path / "said")
    run.join()
    said = (tmp_path / "said").read_text()
    assert run.exitcode == 0, said
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 8
    measured = [row[1] for row in rows]
    assert measured[1] == "not measured: no official code was given"
    assert all(any(letter.isdigit() for letter in value) for place, value in enumerate(measured) if place != 1)
