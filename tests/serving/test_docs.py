"""The page on serving: its code runs as it stands, and its table has every limit with its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from janusflow.serving.settings import Limits
from tests.serving.conftest import KEY, Served

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    code = code.replace("http://127.0.0.1:8000", served.url).replace('api_key="none"', f'api_key="{KEY}"')
    exec(compile(code.replace('"num_inference_steps": 20', '"num_inference_steps": 2'), "serving.md", "exec"), {})
    assert (tmp_path / "picture-1.png").is_file()


def test_the_table_has_every_limit_with_its_default() -> None:
    rows = [row.split("|")[1:3] for row in PAGE.splitlines() if row.startswith("| `")]
    found = {
        name: float(value)
        for names, values in rows
        if "--" not in names
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(","), strict=True)
    }
    assert found == {entry.name: getattr(Limits(), entry.name) for entry in fields(Limits)}
