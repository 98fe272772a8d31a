"""A sound recipe, and a file of it with changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

GOOD: dict[str, Any] = {
    "out": "runs/x",
    "parts": ["llm"],
    "steps": 5,
    "batch_size": 4,
    "model": {"checkpoint": "tiny"},
    "data": {"text": [{"kind": "tinyworld"}], "ratios": [{"understanding": 0, "generation": 0, "text": 1}]},
}


def write(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return file
