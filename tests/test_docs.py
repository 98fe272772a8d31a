"""What the pages of docs/ and the README show runs as it stands, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import math
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.flow import METHODS, integrate, uniform_times

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: str, heading: str, language: str) -> list[str]:
    """The code of a section of a page in one language."""
    section = re.split(r"^## ", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
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
    (code,), (command,) = (blocks("tutorials/extend.md", "A benchmark", language) for language in ("python", "bash"))
    (tmp_path / "squares.py").write_text(code)
    assert "# Squares: tiny" in run(command)
    report = json.loads((tmp_path / "runs" / "squares" / "report.json").read_text())
    assert report["judged"] == 4 and report["score"] > 50
    assert (tmp_path / "runs" / "squares" / "report.html").read_text().count("data:image/png") >= 4


@pytest.mark.parametrize("form", ["lines", "list"])
def test_the_questions_of_the_docs_run(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (records,), (command,) = (blocks("evaluation.md", "Your own questions", language) for language in ("json", "bash"))
    for name in ("cat", "dog"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    lines = records if form == "lines" else f"[{','.join(records.splitlines())}]"
    (tmp_path / "questions.jsonl").write_text(lines)
    assert "| category/animals |" in run(command.replace("max_new_tokens=32", "max_new_tokens=2"))
    assert json.loads((tmp_path / "runs" / "qa" / "report.json").read_text())["judged"] == 4


def test_the_solver_of_the_docs_is_of_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.flow.solver.METHODS", dict(METHODS))
    (code,) = blocks("tutorials/extend.md", "A solver", "python")
    exec(code.split("model = ")[0], {})
    errors = []
    for steps in (10, 20):  # dx/dt = x, so x(1) = e
        x = torch.ones(1, 1, dtype=torch.float64)
        errors.append(abs(float(integrate(lambda x, t: x, x, uniform_times(steps), method="ralston")) - math.e))
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_have_the_options_they_are_given(page: Path) -> None:
    root = typer.main.get_command(app)
    for command in commands(page.read_text(encoding="utf-8")):
        known, words = root, shlex.split(command)[1:]
        while words and (inner := inside(known).get(words[0])):
            known, words = inner, words[1:]
        known = known.commands["run"] if "run" in getattr(known, "commands", {}) else known
        options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= {*options, "--help"}, command
        for recipe in (word for word in words if word.startswith("recipes/") and "NAME" not in word):
            assert (ROOT / recipe).is_file(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_can_be_parsed_and_its_imports_exist(page: Path) -> None:
    for code in re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(textwrap.dedent(code[1]))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "janusflow":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def inside(command: Any) -> dict[str, Any]:
    """The commands of a group by name, those of plug-ins too."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    return {name: command.get_command(None, name) for name in names}


def test_the_pages_have_many_commands() -> None:
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 60


def commands(text: str) -> list[str]:
    """The commands of `janusflow` in a page's blocks and text; a comment behind one is left out."""
    shown = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    shown += [" ".join(found.split()) for found in re.findall(r"(?<!`)`(janusflow [^`]+)`(?!`)", text)]
    lines = [line.split("  #")[0].strip() for line in shown]
    return [line.replace("...", "") for line in lines if line.startswith("janusflow ")]


def test_the_page_of_the_command_line_has_every_command() -> None:
    spec = importlib.util.spec_from_file_location("commands", DOCS / "_hooks" / "commands.py")
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((DOCS / "reference" / "cli.md").read_text(encoding="utf-8"))
    titles = re.findall(r"^### `janusflow (.*)`$", page, re.MULTILINE)
    known = inside(typer.main.get_command(app))
    assert titles == [
        f"{name} {inner}".removesuffix(" run") for name in known for inner in inside(known[name]) or {"run": None}
    ]
    assert "[bold]" not in page and "--num-images" in page
