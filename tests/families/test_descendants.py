"""Descendants of Janus-Pro: opened in each layout, named as far as their files say, and others rejected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from tests.conftest import GOLDEN

RELEASED = {
    "FreedomIntelligence/Janus-4o-7B": "Janus-4o",
    "midbee/Janus-Pro-R1-7B": "Janus-Pro-R1",
    "CaraJ/T2I-R1": "T2I-R1",
    "mm-vl/ULM-R1": "ULM-R1",
    "wendell0218/Janus-FocusDiff-7B": "FocusDiff",
}


def copied(place: Path, changes: dict[str, Any] | None = None, card: str = "") -> Path:
    """The small Janus at a place, with changes of its configuration and a card."""
    shutil.copytree(GOLDEN / "janus-small-a", place)
    raw = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**raw, **(changes or {})}))
    if card:
        (place / "README.md").write_text(card)
    return place


def named(place: Path) -> str | None:
    found = describe(place).descendant
    return None if found is None else found.name


@pytest.mark.parametrize(("name", "descendant"), RELEASED.items())
def test_it_is_named_by_its_folder_its_configuration_or_its_card(name: str, descendant: str, tmp_path: Path) -> None:
    assert named(copied(tmp_path / name.split("/")[1])) == descendant
    cached = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "0123"
    assert named(copied(cached)) == descendant
    assert named(copied(tmp_path / "configured", {"_name_or_path": name})) == descendant
    listed = copied(tmp_path / "listed", card=f"---\nbase_model:\n- {name}\n---\n\nMine.\n")
    assert named(listed) == descendant
    assert named(copied(tmp_path / "mine", {"_name_or_path": "deepseek-ai/Janus-Pro-7B"})) is None


@pytest.mark.parametrize("layout", ["official", "transformers"])
@pytest.mark.parametrize(("name", "descendant"), RELEASED.items())
def test_it_opens_in_both_layouts(name: str, descendant: str, layout: str, tmp_path: Path) -> None:
    place = tmp_path / name.split("/")[1]
    if layout == "official":
        # FocusDiff's class is a subclass of the official one.
        copied(place, {"architectures": ["JanusLLamaModel"]} if descendant == "FocusDiff" else {})
    else:
        convert(GOLDEN / "janus-small-a", place, to="transformers", progress=False)
    model: Any = JanusFlow.from_pretrained(place, device="cpu")
    assert model.descendant.name == descendant and describe(place).layout == layout
    assert model.introspects == (descendant == "Janus-Pro-R1")
    expected = "deepseek_old" if descendant == "T2I-R1" else "deepseek"
    assert model.processor.text.sft_format == expected == describe(place).sft_format
    assert model.generate("a star", seed=0, output_type="latent", progress=False).shape == (1, 16)


@pytest.mark.parametrize("to", ["official", "transformers"])
def test_a_copy_with_another_name_is_still_named(to: str, tmp_path: Path) -> None:
    place = copied(tmp_path / "Janus-Pro-R1-7B")
    converted = convert(place, tmp_path / "converted", to=to, progress=False)
    JanusFlow.from_pretrained(place, device="cpu").save_pretrained(tmp_path / "saved")
    assert named(converted) == named(tmp_path / "saved") == "Janus-Pro-R1"
    assert JanusFlow.from_pretrained(tmp_path / "saved", device="cpu").introspects  # type: ignore[attr-defined]
    assert named(convert(converted, tmp_path / "again", to=to, progress=False)) == "Janus-Pro-R1"


def test_another_template_can_be_asked_for(tmp_path: Path) -> None:
    place = copied(tmp_path / "T2I-R1")
    assert JanusFlow.from_pretrained(place, device="cpu", sft_format="deepseek").processor.text.sft_format == "deepseek"


def test_a_model_of_another_family_is_no_descendant(small_folder: Path, tmp_path: Path) -> None:
    assert named(Path(shutil.copytree(small_folder, tmp_path / "Janus-4o"))) is None


def test_another_network_is_rejected_with_a_reason(tmp_path: Path) -> None:
    place = copied(tmp_path / "Janus-4o", {"model_type": "qwen2_vl"})
    with pytest.raises(ValueError, match="describes a 'qwen2_vl' model, not a JanusFlow or Janus one"):
        JanusFlow.from_pretrained(place)
    place = copied(tmp_path / "ULM-R1", {"gen_head_config": {"cls": "two_heads", "params": {}}})
    with pytest.raises(ValueError, match="gen_head_config.*two_heads"):
        JanusFlow.from_pretrained(place)
