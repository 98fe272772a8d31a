"""What importing a part of the package brings with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ABOVE = {
    "janusflow.model": {"processing", "checkpoint", "families", "pipelines", "engine"},
    "janusflow.processing.processor": {"checkpoint", "families", "pipelines", "engine", "model"},
    "janusflow.families": {"checkpoint", "pipelines", "engine", "model"},
    "janusflow.checkpoint": {"pipelines", "engine"},
}
# Each module is imported in a child of an interpreter that has the libraries, whose imports take seconds, and nothing
# of janusflow.
PROGRAM = """
import importlib, json, os, sys
import torch
from transformers import AutoProcessor, LlamaForCausalLM, SiglipVisionModel


def parts():
    return sorted({name.split(".")[1] for name in sys.modules if name.startswith("janusflow.")})


assert not parts()
for module in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        importlib.import_module(module)
        found = {"parts": parts()}
        if module == "janusflow.model":
            from janusflow.folders import find_folder
            found["processor"] = type(AutoProcessor.from_pretrained(find_folder("tiny"))).__module__
        print(json.dumps({module: found}), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, dict[str, list[str]]]:
    """By module, what is there when it has been imported alone."""
    words = [sys.executable, "-c", PROGRAM, *ABOVE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {name: found for line in done.stdout.splitlines() for name, found in json.loads(line).items()}


@pytest.mark.parametrize("module", ABOVE)
def test_a_layer_does_not_load_those_above_it(imported: dict[str, dict[str, list[str]]], module: str) -> None:
    loaded = set(imported[module]["parts"])
    assert module.split(".")[1] in loaded and not loaded & ABOVE[module]


def test_transformers_opens_our_processor_when_only_the_network_was_imported(
    imported: dict[str, dict[str, list[str]]],
) -> None:
    assert imported["janusflow.model"]["processor"] == "janusflow.processing.processor"
