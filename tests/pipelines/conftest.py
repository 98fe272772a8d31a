"""The golden case of a Janus model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.pipelines.janus import Janus
from tests.conftest import Golden, golden_folders


@pytest.fixture(scope="session", params=golden_folders("janus-*"), ids=lambda folder: folder.name)
def janus_golden(request: pytest.FixtureRequest) -> Golden:
    folder: Path = request.param
    cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return Golden(folder, load_file(folder / "expected.safetensors"), cases)


@pytest.fixture(scope="session")
def janus(janus_golden: Golden) -> Janus:
    model: Any = JanusFlow.from_pretrained(janus_golden.folder, device="cpu")
    assert isinstance(model, Janus)
    return model
