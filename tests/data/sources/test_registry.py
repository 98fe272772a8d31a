"""Kinds of sources by name: the package's own, and those of other packages, with settings of their own."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from janusflow import functions
from janusflow.data.sources import registry
from janusflow.data.sources.registry import BUILT_IN, find_kind, kinds, without_foreign
from janusflow.training.config import load_config

PLUGIN = """
from dataclasses import dataclass
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from janusflow.data.records import Record
from janusflow.data.sources import SourceConfig


@dataclass(frozen=True)
class GrayConfig(SourceConfig):
    kind: Literal["gray"] = "gray"
    brightness: Annotated[int, Field(ge=0, le=255)] = 128

    def check(self, task, *, checkpoint):
        super().check(task, checkpoint=checkpoint)
        if task == "text":
            raise ValueError("gray pictures are no texts")

    def open(self, task, seed, rank, ranks):
        return Gray(self)


class Gray:
    length = None

    def __init__(self, config):
        self.config = config

    def record(self, index):
        return Record(f"gray {index}", (Image.new("L", (8, 8), self.config.brightness),), text="gray")


class NotOne:
    pass
"""
RECIPE = """
out: runs/gray
parts: [generation]
steps: 1
batch_size: 1
model: {checkpoint: tiny}
data: {generation: [{kind: gray, brightness: 7, weight: 2}], ratios: [{understanding: 0, generation: 1, text: 0}]}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a kind that another package registers."""
    (tmp_path / "gray_pictures.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gray_pictures", raising=False)
    values = {"gray": "gray_pictures:GrayConfig", "folder": "gray_pictures:GrayConfig"}
    values |= {"broken": "not_installed_at_all:X", "odd": "gray_pictures:NotOne"}
    found = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    monkeypatch.setattr(functions, "entry_points", lambda group: found if group == "janusflow.sources" else [])
    file = tmp_path / "gray.yaml"
    file.write_text(RECIPE)
    return file


def test_another_package_registers_a_kind_with_settings_of_its_own(recipe: Path) -> None:
    (source,) = load_config(recipe).data.generation
    assert (source.kind, source.weight) == ("gray", 2.0)
    opened = source.open("generation", 0, 0, 1)
    assert opened.record(3).images[0].getpixel((0, 0)) == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data.generation.0.brightness=300", "data.generation.0.brightness is 300: input should be less than or equal"),
        ("data.generation.0.brightnes=3", "brightnes is not a setting of a recipe; did you mean data.*0.brightness?"),
        ("data.generation.0.streaming=true", "data.generation.0.streaming is not a setting of a recipe"),
        (
            "data.generation.0.kind=grey",
            "data.generation.0: kind of source is 'grey'; choose from .*; did you mean gray",
        ),
        ("data.generation.0.kind=broken", "source 'broken' is registered as not_installed_at_all:X, which does not"),
        ("data.generation.0.kind=odd", "source 'odd' is gray_pictures:NotOne, which is not a subclass of SourceConfig"),
        ("data.generation.0.kind=3", "data.generation.0.kind is 3"),
        ("data.generation.0=5", "data.generation.0 is 5"),
        ("data.text=[{kind: gray}]", "data.text: gray pictures are no texts"),
    ],
)
def test_a_mistake_in_a_source_is_one_sentence(recipe: Path, given: str, said: str) -> None:
    with pytest.raises(ValueError) as told:
        load_config(recipe, [given])
    for words in said.split(".*"):
        assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_kinds_of_the_package_are_not_replaced(recipe: Path) -> None:
    assert [*kinds()] == [*BUILT_IN, "gray", "broken", "odd"]
    assert find_kind("folder").__name__ == "FolderConfig"


def test_of_an_older_versions_settings_those_of_other_kinds_are_left_out(recipe: Path) -> None:
    old = {"kind": "gray", "path": "", "brightness": 7, "shares": {}, "questions": 4, "min_score": 0.5, "odd": 1}
    assert without_foreign(old) == {"kind": "gray", "path": "", "brightness": 7, "odd": 1}
    for damaged in (3, {"kind": "unknown", "shares": 1}, {"kind": []}):
        assert without_foreign(damaged) == damaged
