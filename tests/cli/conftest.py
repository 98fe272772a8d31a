"""Commands on the small checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from janusflow.cli import app
from janusflow.cli.prompt_file import MANIFEST

runner = CliRunner()
Run = Callable[..., Result]


@pytest.fixture
def run(small_folder: Path, vae_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command on the small checkpoint."""

    def call(command: str, *arguments: object, stdin: str | None = None, model: Path = small_folder) -> Result:
        extra = ["--model", str(model)] + (["--vae", str(vae_folder)] if command in ("generate", "chat") else [])
        words = [str(argument) for argument in arguments]
        return runner.invoke(app, [command, *words, *extra, "--device", "cpu"], input=stdin)

    return call


def sentence(result: Result) -> str:
    """The one sentence of a refused command."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    return lines[0]


@pytest.fixture
def generated(small_folder: Path, vae_folder: Path) -> Run:
    """Runs `janusflow generate`, on the small checkpoint unless another model or a picture is given."""

    def call(*words: object) -> Result:
        given = [str(word) for word in words]
        model = [] if "--from" in given or "--model" in given else ["--model", str(small_folder)]
        vae = [] if "--from" in given or "--model" in given else ["--vae", str(vae_folder)]
        return runner.invoke(app, ["generate", *given, *model, *vae, "--device", "cpu"])

    return call


def error_line(result: Result) -> str:
    """The error of a refused command, which may have warned too."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "Traceback" not in result.output
    return line


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
