"""The README's commands and code run, and its tree is true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip() if line.startswith("make") else line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


@pytest.fixture
def environment() -> dict[str, str]:
    """PATH with this interpreter's scripts first, and no network."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_the_first_two_commands_are_demo_and_test() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "docs", "bench"):
        assert re.search(rf"^{target}: \$\(READY\)$", makefile, re.MULTILINE)
    ran = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make test", "make lint", "make docs", ".ci/check-install eval"} <= set(ran)


def test_commands_and_code_run_one_after_the_other(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for command in COMMANDS[2:]:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scene.png").is_file()


def test_other_commands_in_the_text_exist(environment: dict[str, str]) -> None:
    for command in re.findall(r"`(python -m [^`]+|janusflow [^`]+)`", TEXT):
        words = shlex.split(command)
        words = words[: words.index("--out")] if "--out" in words else words[:2] if words[0] == "janusflow" else words
        done = subprocess.run([*words, "--help"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)


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
