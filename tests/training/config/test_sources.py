"""A user's own data joins the sources of a recipe with the share that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from janusflow.training.config import load_config
from janusflow.training.config.sources import sources_of, weights_of
from tests.training.config.conftest import write

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_share_of_ones_own_data(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "a.png")
    (tmp_path / "own" / "a.txt").write_text("a black picture")
    for share in (0.25, 0.5, 1.0):
        given = ["data.understanding=[{kind: tinyworld}]", "data.generation=[{kind: tinyworld, weight: 3}]"]
        given.append("data.ratios=[{understanding: 1, generation: 1, text: 0}]")
        config = load_config(write(tmp_path), [f"data={tmp_path / 'own'}", f"data.own_share={share}", *given])
        for task in ("understanding", "generation"):
            weights = weights_of(config.data)[task]
            assert weights[-1] / sum(weights) == pytest.approx(share)
            assert len(weights) == 1 + (share < 1) * len(getattr(config.data, task))


def test_several_data_sets_of_ones_own_are_taken_as_one(tmp_path: Path) -> None:
    pictures, talks = tmp_path / "pictures", tmp_path / "talks.jsonl"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a black picture")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "nothing"}]
    talks.write_text(f"{json.dumps({'image': 'pictures/0.png', 'conversations': talk})}\n" * 9)
    words = ["data.understanding=[{kind: tinyworld}]", "data.generation=[{kind: tinyworld}]", "data.own_share=0.5"]
    words.append("data.ratios=[{understanding: 1, generation: 1, text: 0}]")
    config = load_config(write(tmp_path), [f"data=[{pictures},{talks}]", "crop=pad", *words])
    assert config.samples.crop == "pad"
    assert weights_of(config.data)["understanding"] == pytest.approx([1, 3 / 12, 9 / 12])
    assert weights_of(config.data)["generation"] == pytest.approx([1, 1])
    assert [source.path for source in sources_of(config.data)["generation"][1:]] == [str(pictures)]
    both = tmp_path / "both.jsonl"
    both.write_text(talks.read_text() + json.dumps({"image": "pictures/0.png", "text": "a black picture"}) + "\n")
    config = load_config(write(tmp_path), [f"data=[{pictures},{both}]", *words])
    assert weights_of(config.data)["generation"] == pytest.approx([1, 3 / 4, 1 / 4]), "only one of ten has a caption"
    for wrong in ("[]", f"[{pictures},{pictures}]"):
        with pytest.raises(ValueError, match="data.own is .*; expected one or more folders or files, each once"):
            load_config(write(tmp_path), [f"data={wrong}", *words])
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load_config(write(tmp_path), [f"data=[{pictures},{tmp_path / 'nowhere'}]", *words])


def test_a_cache_takes_every_crop_but_a_random_one(tmp_path: Path) -> None:
    words = ["data.generation=[{kind: tinyworld}]", "data.understanding=[{kind: tinyworld}]", f"data.cache={tmp_path}"]
    for crop in ("center", "pad"):
        load_config(write(tmp_path), [*words, f"crop={crop}"])
    for given in (["crop=random"], ["crop=pad", "data.generation.0.crop=random"]):
        with pytest.raises(ValueError, match="data.cache keeps .* it needs samples.crop=center or pad"):
            load_config(write(tmp_path), [*words, *given])


def test_own_data_that_nobody_would_see_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "nothing"}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"image": "a.png", "conversations": talk}) + "\n")
    with pytest.raises(ValueError, match=r"talks.jsonl serves only understanding, which data.ratios give no share"):
        load_config(RECIPES / "finetune" / "generation.yaml", ["model=tiny", f"data={tmp_path / 'talks.jsonl'}"])
    load_config(RECIPES / "tiny" / "finetune_both.yaml", ["model=tiny", f"data={tmp_path / 'talks.jsonl'}"])
