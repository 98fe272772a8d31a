"""What importing a part of the package brings with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
import {0}
print(*{{name.split(".")[1] for name in sys.modules if name.startswith("janusflow.")}})
"""
OPENED = """
import janusflow.model
from transformers import AutoProcessor
from janusflow.folders import find_folder
print(type(AutoProcessor.from_pretrained(find_folder("tiny"))).__module__)
"""


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("janusflow.model", ["processing", "checkpoint", "families", "pipelines", "engine"]),
        ("janusflow.processing.processor", ["checkpoint", "families", "pipelines", "engine", "model"]),
        ("janusflow.families", ["checkpoint", "pipelines", "engine", "model"]),
        ("janusflow.checkpoint", ["pipelines", "engine"]),
    ],
)
def test_a_layer_does_not_load_those_above_it(module: str, others: list[str]) -> None:
    loaded = set(run(LOADED.format(module)))
    assert module.split(".")[1] in loaded and not loaded & set(others)


def test_transformers_opens_our_processor_when_only_the_network_was_imported() -> None:
    assert run(OPENED) == ["janusflow.processing.processor"]
