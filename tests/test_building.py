"""Modules are built by one thread at a time, and nothing stays random."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from janusflow import JanusFlow
from janusflow.building import finite
from janusflow.vae import LatentCodec

THREADS = 6


def in_threads(work: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """What a function gives in several threads that begin together; an error of one is raised."""
    results: list[torch.Tensor | BaseException] = []
    begin = threading.Barrier(THREADS)

    def run() -> None:
        begin.wait()
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, torch.Tensor)]


def generated(model: JanusFlow) -> torch.Tensor:
    return torch.from_numpy(model.generate("a star", seed=0, num_inference_steps=1, output_type="np", progress=False))


def test_models_open_in_several_threads_and_afterwards(small_folder: Path, vae_folder: Path) -> None:
    def load() -> torch.Tensor:
        return generated(JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu"))

    expected = load()
    assert all(torch.equal(found, expected) for found in in_threads(load))
    assert torch.equal(load(), expected)


def test_the_first_pictures_of_several_threads_open_the_vae_once(
    small_folder: Path, vae_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    open_codec = LatentCodec.from_pretrained
    monkeypatch.setattr(LatentCodec, "from_pretrained", lambda *a, **k: (opened.append(a), open_codec(*a, **k))[1])
    model = JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")
    first, *others = in_threads(lambda: generated(model))
    assert len(opened) == 1 and all(torch.equal(first, other) for other in others)


def test_finite_accepts_floating_point_numbers_only() -> None:
    assert finite(torch.ones(2)) and finite(torch.ones(0)) and finite(torch.ones(2).to(torch.float8_e4m3fn))
    assert not finite(torch.tensor([1, float("nan")])) and not finite(torch.tensor([float("inf"), 0]).bfloat16())
    assert not finite(torch.ones(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lack", "it describes 24759 weights, and the weight files hold 24471"),
        ("surplus", "hold surplus 1 tensors: decoder.nothing"),
        ("misshapen", "it describes 24759 weights, and the weight files hold 24615"),
        ("NaN", "have NaN or infinite values in 1 tensors: decoder.conv_in.weight"),
    ],
)
def test_a_vae_whose_weights_do_not_fill_it_is_rejected(
    vae_folder: Path, tmp_path: Path, fault: str, message: str
) -> None:
    name = "decoder.conv_in.weight"
    tensors = load_file(vae_folder / "diffusion_pytorch_model.safetensors")
    changed = {
        "lack": {key: value for key, value in tensors.items() if key != name},
        "surplus": tensors | {"decoder.nothing": torch.ones(2)},
        "misshapen": tensors | {name: tensors[name][:4].clone()},
        "NaN": tensors | {name: tensors[name] * float("nan")},
    }
    save_file(changed[fault], tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((vae_folder / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        LatentCodec.from_pretrained(tmp_path, dtype=torch.float32, device=torch.device("cpu"))
