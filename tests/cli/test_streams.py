"""The real command with standard streams that are closed, broken or of few characters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m janusflow generate 'é star' --steps 1 -n 3 --batch-size 1 --device cpu --out out"


@pytest.mark.parametrize(
    ("streams", "environment"),
    [
        ("<&- >&- 2>&-", {}),
        ("| true", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("", {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
    ],
    ids=["all closed", "nobody reads an ASCII system", "ASCII output"],
)
def test_no_picture_is_lost(streams: str, environment: dict[str, str], tmp_path: Path) -> None:
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **environment}
    words = ["bash", "-o", "pipefail", "-c", f"{COMMAND} {streams}"]
    done = subprocess.run(words, cwd=tmp_path, env=given, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len(files) == 4 and all(file.endswith(".png") for file in files)
    assert all((tmp_path / "out" / file).read_bytes().startswith(b"\x89PNG") for file in files)
