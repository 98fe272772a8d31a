"""Each kind of extension is added by what docs/tutorials/extend.md and CONTRIBUTING.md say, and by nothing else.

Losses have their own test in tests/training/losses, commands in tests/cli/test_plugins.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from janusflow import families
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from janusflow.config import JanusFlowConfig
from janusflow.data.sources.registry import read_source
from janusflow.families.layout import Layout, Source, own_layout
from tests.test_docs import METHODS, ROOT, blocks, run

PAGE = "tutorials/extend.md"
Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with one module, and an entry point that names something in it."""

    def write(module: str, code: str, entry_point: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        record = tmp_path / f"{module}-1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(entry_point.replace("my_package.", ""))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)

    return write


def entry_point(heading: str) -> str:
    """The entry point that a section of the page shows, as an installed package has it."""
    (shown,) = blocks(PAGE, heading, "toml")
    group, line = re.fullmatch(r'\[project\.entry-points\."(.+)"\]\n(.+)\n', shown).groups()  # type: ignore[union-attr]
    return f"[{group}]\n{line.replace(chr(34), '')}\n"


def test_a_solver_is_a_function_and_an_entry() -> None:
    before = dict(METHODS)
    try:
        names: dict[str, Any] = {}
        exec(blocks(PAGE, "A solver", "python")[0], names)
    finally:
        for name in METHODS.keys() - before.keys():
            del METHODS[name]
    assert isinstance(names["picture"], Image.Image)


def test_a_benchmark_is_a_file_and_an_entry_point(install: Install) -> None:
    install("squares", blocks(PAGE, "A benchmark", "python")[0], entry_point("A benchmark"))
    assert "# Squares: tiny" in run("janusflow eval squares --out squares-run")
    assert json.loads(Path("squares-run/report.json").read_text())["judged"] == 4
    assert "squares" in run("janusflow eval --list")


def test_a_source_is_a_file_and_an_entry_point(install: Install) -> None:
    install("gray", blocks(PAGE, "Your data", "python")[0], entry_point("Your data"))
    source: Any = read_source({"kind": "gray", "least": 100}).open("generation", 7, 0, 1)
    record = source.record(3)
    brightness = record.images[0].getpixel((0, 0))
    assert record.text == f"a gray square of brightness {brightness}" and 100 <= brightness <= 255
    assert source.record(3).text == record.text
    with pytest.raises(ValueError, match="least"):
        read_source({"kind": "gray", "least": 256})


def test_a_layout_is_a_file_and_a_place_in_its_family(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_layout(JanusFlowConfig)

    def write(config: JanusFlowConfig, processor: Any, folder: Path, dtype: str) -> None:
        assert own.write is not None
        own.write(config, processor, folder, dtype)
        file = folder / "config.json"
        file.write_text(file.read_text().replace('"model_type": "janusflow"', '"model_type": "old_flow"'))

    layout = Layout(
        "old",
        detect=lambda raw, files: raw.get("model_type") == "old_flow",
        read_config=lambda raw, ids, names: JanusFlowConfig.from_dict({**raw, "model_type": "janusflow"}),
        source=lambda name: Source((f"old.{name}",)),
        write=write,
    )
    family = families.families()["JanusFlow"]
    monkeypatch.setitem(families._found, "JanusFlow", replace(family, layouts=(*family.layouts, layout)))
    ours = convert(small_folder, tmp_path / "ours", progress=False)
    old = convert(ours, tmp_path / "old", to="old", progress=False)
    assert describe(old).layout == "old"
    assert all(name.startswith("old.") for name in load_file(old / "model.safetensors"))
    back = convert(old, tmp_path / "back", progress=False)
    before, after = load_file(ours / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_family_is_a_file_and_an_entry_point(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_found", {})
    shown = entry_point("A family").replace("my_package.toy", "tests.families.toy")
    install("toy_package", "", shown)
    found = families.find_layout({"model_type": "toy"})
    assert found is not None and found[0].name == "Toy"  # the rest is in tests/families/test_toy.py


def test_contributing_names_files_that_exist_and_all_folders() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+(?:/|\.py|\.md))`", text):
        if "NAME" not in name:
            assert (ROOT / name).exists() or (ROOT / "src" / "janusflow" / name).exists(), name
    folders = {file.parent.name for file in (ROOT / "src" / "janusflow").glob("*/__init__.py")}
    tree = text.split("```")[3]
    assert folders == set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))


def test_the_page_on_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 30 and not [name for name in named if not (ROOT / "src" / "janusflow" / name).is_file()]
