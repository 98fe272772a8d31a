"""The page of `--page`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import janusflow.serving
from tests.serving.conftest import Served

FOLDER = Path(janusflow.serving.__file__).parent / "page"
CHROMIUM = shutil.which("chromium")


def test_the_page_needs_no_key_and_its_files_are_there(served: Served) -> None:
    with served.http("none") as http:
        moved = http.get("/")
        assert moved.status_code == 307 and moved.headers["location"] == "/page/"
        page = http.get("/page/").text
        names = re.findall(r'(?:href|src)="(\w+\.\w+)"', page)
        assert names
        for name in names:
            assert http.get(f"/page/{name}").text == (FOLDER / name).read_text(encoding="utf-8")
        for path in ("/page/../command.py", "/page/%2e%2e/command.py", "/page/..%2fcommand.py", "/page//etc/passwd"):
            assert http.get(path).status_code in (401, 404)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://|@import", text), file.name
        for name in re.findall(r'from "\./(.+)"|import "\./(.+)"', text):
            assert (FOLDER / "".join(name)).is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_runs_the_page_which_asks_for_the_key(served: Served, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    ]
    shown = subprocess.run(
        [*command, "--virtual-time-budget=5000", f"{served.url}/"], capture_output=True, text=True, timeout=120
    ).stdout
    assert re.search(r'<dialog id="key"[^>]* open', shown)
    assert "<output>30</output>" in shown
