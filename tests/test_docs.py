"""What docs/evaluation.md shows runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str) -> list[str]:
    """The code of a section in one language."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    found = next(part for part in section if part.startswith(f"{heading}\n"))
    return re.findall(rf"```{language}\n(.*?)```", found, re.DOTALL)


def run(command: str) -> str:
    """What a command of the docs prints."""
    _, *words = shlex.split(command)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_benchmark_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "squares", raising=False)
    (code,), (command,) = blocks("Adding a benchmark", "python"), blocks("Adding a benchmark", "bash")
    (tmp_path / "squares.py").write_text(code)
    assert "# Squares: tiny" in run(command)
    report = json.loads((tmp_path / "runs" / "squares" / "report.json").read_text())
    assert report["judged"] == 4 and report["score"] > 50
    assert (tmp_path / "runs" / "squares" / "report.html").read_text().count("data:image/png") >= 4


@pytest.mark.parametrize("form", ["lines", "list"])
def test_the_questions_of_the_docs_run(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (records,), (command,) = blocks("Your own questions", "json"), blocks("Your own questions", "bash")
    for name in ("cat", "dog"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    lines = records if form == "lines" else f"[{','.join(records.splitlines())}]"
    (tmp_path / "questions.jsonl").write_text(lines)
    assert "| category/animals |" in run(command.replace("max_new_tokens=32", "max_new_tokens=2"))
    assert json.loads((tmp_path / "runs" / "qa" / "report.json").read_text())["judged"] == 4
