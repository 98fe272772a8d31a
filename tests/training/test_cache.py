"""The cache: computed once, never for other weights or pixels, and training with it is training without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from janusflow.training import cache as cache_module
from janusflow.training.cache import PictureCache
from janusflow.training.trainer import train
from tests.training.conftest import settings


class Counted:
    """A maker that counts the pictures it is asked for."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.module, self.pictures = nn.Conv2d(3, 2, 2, stride=2), 0

    def __call__(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        return self.module(pixels)


def test_each_picture_is_computed_once(tmp_path: Path) -> None:
    maker, pixels = Counted(0), torch.randn(3, 3, 4, 4)
    cache = PictureCache(tmp_path, maker.module, maker)
    first = cache(pixels[:2])
    again = PictureCache(tmp_path, maker.module, maker)(pixels)
    assert maker.pictures == 3
    assert torch.equal(first, again[:2])
    assert torch.allclose(again, maker.module(pixels))


def test_other_weights_do_not_meet_old_values(tmp_path: Path) -> None:
    one, other, pixels = Counted(0), Counted(1), torch.randn(1, 3, 4, 4)
    PictureCache(tmp_path, one.module, one)(pixels)
    assert torch.equal(PictureCache(tmp_path, other.module, other)(pixels), other.module(pixels))


def test_other_scaling_does_not_meet_old_values(tmp_path: Path) -> None:
    maker, pixels = Counted(0), torch.randn(1, 3, 4, 4)
    for factor in (1.0, 2.0):
        cache = PictureCache(tmp_path, maker.module, lambda x, f=factor: f * maker.module(x), settings=(factor,))
        assert torch.equal(cache(pixels), factor * maker.module(pixels))


def test_a_torn_file_is_computed_anew(tmp_path: Path) -> None:
    maker, pixels = Counted(0), torch.randn(1, 3, 4, 4)
    value = PictureCache(tmp_path, maker.module, maker)(pixels)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    assert torch.equal(PictureCache(tmp_path, maker.module, maker)(pixels), value)
    assert maker.pictures == 2


@pytest.mark.parametrize("learning", ["tower", "lora"])
def test_features_of_a_tower_that_learns_are_not_kept(start: Path, tmp_path: Path, learning: str) -> None:
    options: dict[str, Any] = {"parts": ["aligner", "generation", "llm"], "samples": {"crop": "center"}, "steps": 1}
    data = {"generation": [{"kind": "tinyworld"}], "ratios": [{"understanding": 0, "generation": 1, "text": 0}]}
    for name, more in (
        ("frozen", {}),
        (
            "learns",
            {"parts": [*options["parts"], "tower"]} if learning == "tower" else {"lora": {"rank": 2, "tower": True}},
        ),
    ):
        given = {**data, "workers": 0, "cache": str(tmp_path / name)}
        train(settings(start, tmp_path / f"run-{name}", **{**options, **more, "data": given}), device="cpu")
        kept = {folder.name for folder in (tmp_path / name).iterdir()}
        assert kept == ({"latents", "features"} if name == "frozen" else {"latents"})


def test_training_from_the_cache_is_training(start: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), color).save(pictures / f"{index}.png")
        (pictures / f"{index}.txt").write_text(f"a {color} wall")
    data = {
        "generation": [{"kind": "folder", "path": str(pictures)}],
        "ratios": [{"understanding": 0, "generation": 1, "text": 0}],
        "workers": 0,
    }
    common = {"parts": ["aligner", "generation", "llm"], "samples": {"crop": "center"}, "batch_size": 3}
    curves = []
    for name, cache in (("without", {}), ("cold", {"cache": "c"}), ("warm", {"cache": "c"})):
        if cache:
            cache = {"cache": str(tmp_path / "cache")}
        config = settings(start, tmp_path / name, data={**data, **cache}, **common)
        train(config, device="cpu", progress_bar=False)
        rows = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        curves.append(torch.tensor([[row[key] for key in ("flow", "repa", "loss")] for row in rows]))
        if name == "cold":
            times = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
            assert len(times) == 6  # three latents, three features
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert torch.allclose(curves[1], curves[0], atol=1e-4)
    assert torch.allclose(curves[2], curves[0], atol=1e-4)


def test_processes_of_two_nodes_may_keep_the_same_picture_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may have the same number, so it does not name the file that is written and then renamed."""
    file, save, calls = tmp_path / "a" / "picture.safetensors", cache_module.save_file, []

    def saved(tensors: dict[str, torch.Tensor], place: Path) -> None:
        save(tensors, place)
        calls.append(place)
        if len(calls) == 1:  # before this one is renamed
            cache_module._write(file, torch.ones(2))

    monkeypatch.setattr(cache_module, "save_file", saved)
    cache_module._write(file, torch.ones(2))
    assert len(calls) == 2 and [kept.name for kept in file.parent.iterdir()] == ["picture.safetensors"]
