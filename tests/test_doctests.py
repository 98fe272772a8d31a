"""The examples in docstrings run as they stand; every public entry point has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.tinyworld.scenes import BACKGROUNDS, COLORS, Scene, Shape, render

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "janusflow"
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = sorted(
    ".".join(("janusflow", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for file in SOURCE.rglob("*.py")
    if re.search(r"^\s*>>> ", file.read_text(encoding="utf-8"), re.MULTILINE)
)
ENTRY_POINTS = {
    "janusflow.pipelines.base": ["Pipeline.from_pretrained", "Pipeline.save_pretrained"],
    "janusflow.pipelines.janusflow": ["JanusFlow.generate", "JanusFlow.load_adapters"],
    "janusflow.pipelines.conversation": ["Conversational.ask", "Conversational.chat", "Conversational.stream"],
    "janusflow.pipelines.provenance": ["settings_of"],
    "janusflow.checkpoint.hub": ["push_to_hub"],
    "janusflow.checkpoint.convert": ["convert"],
    "janusflow.checkpoint.load": ["open_checkpoint"],
    "janusflow.checkpoint.describe": ["describe"],
    "janusflow.families": ["families", "family_of"],
    "janusflow.config": ["JanusFlowConfig", "janusflow_1b", "tiny"],
    "janusflow.processing.processor": ["JanusFlowProcessor"],
    "janusflow.processing.images": ["load_image", "load_mask"],
    "janusflow.processing.messages": ["flatten", "read_turns"],
    "janusflow.flow.path": ["interpolate"],
    "janusflow.flow.solver": ["integrate"],
    "janusflow.flow.guidance": ["guide"],
    "janusflow.tinyworld.scenes": ["render"],
    "janusflow.tinyworld.checker": ["check", "read"],
    "janusflow.evaluation.registry": ["find_benchmark"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What examples open: a picture, and the recipes."""
    circle = Shape("circle", "red", x=32, y=32, radius=12, rgb=COLORS["red"])
    pixels = render(Scene((circle,), "gray", BACKGROUNDS["gray"]))
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)


def failures(module: Any) -> list[str]:
    """What is wrong with the examples of a module."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        runner.run(test, out=said.append)
    return said


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_they_stand(name: str, few_steps: None) -> None:
    assert not failures(importlib.import_module(name))


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_public_entry_points_have_an_example(module: str) -> None:
    for name in ENTRY_POINTS[module]:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        assert doctest.DocTestParser().get_examples(inspect.getdoc(found) or ""), f"{module}.{name}"


def test_an_example_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("janusflow.reasoning")
    monkeypatch.setattr(module.final_answer, "__doc__", ">>> final_answer('<think>red</think> yes')\n'no'\n")
    (said,) = failures(module)
    assert "Expected:\n    'no'" in said
