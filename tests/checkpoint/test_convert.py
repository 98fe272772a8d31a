"""Every layout into ours and the official one and back, to the bit; all or nothing; in little memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.checkpoint import convert as convert_module
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.convert import convert
from tests.conftest import GOLDEN

OFFICIAL = GOLDEN / "janusflow-small-a"


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same tensors."""
    files = [
        {name: value for file in path.glob("*.safetensors") for name, value in load_file(file).items()}
        for path in (one, other)
    ]
    return files[0].keys() == files[1].keys() and all(
        files[1][name].dtype == value.dtype and torch.equal(files[1][name], value) for name, value in files[0].items()
    )


@pytest.mark.parametrize("name", ["janusflow-small-a", "janusflow-small-a-paddle"])
@pytest.mark.parametrize("way", [("official",), ("janusflow", "official"), ("official", "janusflow", "official")])
def test_round_trips_are_exact_to_the_bit(tmp_path: Path, name: str, way: tuple[str, ...]) -> None:
    place = GOLDEN / name
    for step, layout in enumerate(way):
        place = convert(place, tmp_path / f"{step}", to=layout, progress=False)
        assert open_checkpoint(place).layout == layout
    golden = tmp_path / "golden"
    golden.mkdir()
    shutil.copy(OFFICIAL / "model.safetensors", golden)
    assert same(place, golden)
    raw = json.loads((place / "config.json").read_text())
    assert raw == json.loads((OFFICIAL / "config.json").read_text())
    assert "DeepSeek Model License" in (place / "README.md").read_text()


def test_what_is_converted_paints_and_answers_the_same(tmp_path: Path) -> None:
    before = JanusFlow.from_pretrained(OFFICIAL, device="cpu")
    after = JanusFlow.from_pretrained(convert(OFFICIAL, tmp_path / "ours", progress=False), device="cpu")
    options = {"num_inference_steps": 2, "seed": 0, "output_type": "latent", "progress": False}
    assert torch.equal(after.generate("a star", **options), before.generate("a star", **options))  # type: ignore
    assert after.ask("hi", max_new_tokens=8) == before.ask("hi", max_new_tokens=8)


def test_large_models_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SHARD_BYTES", 300_000)
    folder = convert(OFFICIAL, tmp_path / "shards", to="official", progress=False)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    monkeypatch.undo()
    assert same(convert(folder, tmp_path / "one", to="official", progress=False), folder)


def test_a_dtype_is_taken_and_a_vae_travels_along(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "LICENSE-MODEL").write_text("terms")
    folder = convert(tmp_path / "ours", tmp_path / "half", dtype="bfloat16", progress=False)
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert (folder / "vae" / "config.json").is_file()
    assert (folder / "LICENSE-MODEL").read_text() == "terms"
    assert JanusFlow.from_pretrained(folder, device="cpu").network.dtype == torch.bfloat16


def test_the_shipped_model_paints_from_the_official_layout_too(tiny_model: JanusFlow, tmp_path: Path) -> None:
    model = JanusFlow.from_pretrained(convert("tiny", tmp_path / "tiny", to="official", progress=False), device="cpu")
    pictures = [one.generate("a star", seed=0, num_inference_steps=2)[0] for one in (model, tiny_model)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_nothing_is_left_of_one_that_fails(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(OFFICIAL, tmp_path / "broken"))
    raw = json.loads((broken / "config.json").read_text())
    raw["language_config"]["vocab_size"] += 1
    (broken / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="which does not fit"):
        convert(broken, tmp_path / "new", to="official", progress=False)
    for refused, words in ((tmp_path / "broken", "exists already"), (tmp_path / "new", "allowed are janusflow")):
        with pytest.raises(ValueError, match=words):
            convert(OFFICIAL, refused, to="other" if words.startswith("allowed") else "official", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
