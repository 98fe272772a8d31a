"""The script for a GPU runs on a CPU at small size, so that a lent GPU's minutes are not spent on its mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_engine.py"


@pytest.mark.skipif("CI" in os.environ, reason="a minute of one core")
def test_every_row_is_measured() -> None:
    command = [sys.executable, str(SCRIPT), "--small", "--device", "cpu", "--repeats", "1", "--compile", "off"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 8
    measured = [row[1] for row in rows]
    assert measured[1] == "not measured: no official code was given"
    assert all(any(letter.isdigit() for letter in value) for place, value in enumerate(measured) if place != 1)
