"""The README's commands and code run, and its tree is true."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation.reports import intervals
from janusflow.training import measure
from tests.processes import fork, run_module

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip() if line.startswith("make") else line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_first_two_commands_are_demo_and_test() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "docs", "bench"):
        assert re.search(rf"^{target}: \$\(READY\)$", makefile, re.MULTILINE)
    ran = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make test", "make --jobs 2 --output-sync check-install lint docs EXTRAS=eval"} <= set(ran)


def run(command: str) -> None:
    """A command as a shell runs it; what `janusflow` gets runs here, since its imports take seconds each."""
    first, _, last = command.rpartition(" | ")
    if not last.startswith("janusflow "):
        subprocess.run(["bash", "-c", command], check=True)
        return
    given = subprocess.run(["bash", "-c", first], capture_output=True, text=True, check=True).stdout
    done = CliRunner().invoke(app, shlex.split(last)[1:], input=given)
    assert done.exit_code == 0, (command, done.output)


def test_commands_and_code_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(intervals, "RESAMPLES", 50)
    monkeypatch.setattr(measure, "BUDGET", 1.0)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for command in COMMANDS[2:]:
        run(command)
    exec("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)), {})
    assert (tmp_path / "scene.png").is_file()


def test_modules_in_the_text_can_be_run(tmp_path: Path) -> None:
    modules = set(re.findall(r"`python -m ([\w.]+)[^`]*`", TEXT))
    assert modules
    for module in modules:
        shown = fork(run_module, module, ["--help"], said=tmp_path / module)
        shown.join()
        assert shown.exitcode == 0 and "usage" in (tmp_path / module).read_text().lower(), module


def test_the_tree_names_what_is_there() -> None:
    tree = re.search(r"```\n(src/janusflow/.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    named = set()
    for line in tree[1].splitlines():
        path = line.split("  ")[0] if not line.startswith("  ") else line[2:].split("  ")[0]
        folder = ROOT if not line.startswith("  ") else ROOT / "src" / "janusflow"
        for name in path.split(", "):
            assert (folder / name).exists(), name
            named.add((folder / name).resolve())
    for entry in (ROOT / "src" / "janusflow").iterdir():
        if entry.name not in ("__init__.py", "py.typed", "__pycache__", "assets"):
            assert entry.resolve() in named, entry.name


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
