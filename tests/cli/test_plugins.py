"""Commands of other packages: functions and typer applications, found through entry points when they are needed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from janusflow import functions
from janusflow.cli import app, plugins

PLUGIN = '''
import typer

app = typer.Typer(help="Icons.")


@app.callback()
def root() -> None:
    """Icons."""


@app.command()
def build(size: int = 64) -> None:
    """Build icons."""
    print(f"icons of {size}")


def greet(name: str = "you", debug: bool = False) -> None:
    """Greet
    someone."""
    if name == "nobody":
        raise ValueError("there is nobody to greet")
    print(f"hello {name}")
'''


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "icon_commands.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "icon_commands", raising=False)
    values = {"icons": "icon_commands:app", "greet": "icon_commands:greet", "info": "icon_commands:greet"}
    values |= {"broken": "not_installed_at_all:X"}
    found = [EntryPoint(name, value, plugins.GROUP) for name, value in values.items()]
    monkeypatch.setattr(functions, "entry_points", lambda group: found if group == "janusflow.commands" else [])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["greet", "--name", "me"], 0, "hello me"),
        (["greet", "--name", "nobody"], 2, "error: there is nobody to greet"),
        (["greet", "--nam", "me"], 2, "--name"),
        (["icons", "build", "--size", "128"], 0, "icons of 128"),
        (["broken"], 2, "error: command 'broken' is registered as not_installed_at_all:X, which does not load"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_commands_of_other_packages_run(words: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_help_lists_them_after_the_packages_own() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    places = [
        told.index(words) for words in ("generate", "Not available: command 'broken'", "Greet someone.", "Icons.")
    ]
    assert places == sorted(places)
    assert "hello" not in CliRunner().invoke(app, ["info", "--help"]).output  # the package's own


def test_help_imports_no_torch() -> None:
    code = "import sys; from janusflow.cli import app; app(['--help'], standalone_mode=False); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
