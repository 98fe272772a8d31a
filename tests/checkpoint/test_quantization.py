"""Weights in 8 and 4 bits: smaller, close to the full ones, and only where they may be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from janusflow import JanusFlow
from janusflow.checkpoint.quantization import weight_bytes
from tests.conftest import GOLDEN

pytest.importorskip("torchao", reason="make test runs this file with torchao beside the environment")


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("kind", "share", "far"), [("int8", 0.35, 0.02), ("int4", 0.25, 0.1)])
def test_the_shipped_model_in_fewer_bits(tiny_model: JanusFlow, kind: str, share: float, far: float) -> None:
    small = JanusFlow.from_pretrained("tiny", device="cpu", quantize=kind)
    assert small.network.dtype == (torch.bfloat16 if kind == "int4" else torch.float32)
    llm, full = small.network.language_model.layers, tiny_model.network.language_model.layers
    assert weight_bytes(llm) < share * weight_bytes(full)
    noise, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.6])

    def velocity(model: JanusFlow) -> Tensor:
        """Of one moment each: whole paths may part where a noise stands between two pictures."""
        prompts = model.processor.encode_prompts(["a red circle", "two blue stars left of a green cross"])
        with torch.inference_mode():
            return model.network.velocity(noise, t, model.network.encode_prompts(*prompts)).float()

    assert 0 < distance(velocity(small), velocity(tiny_model)) < far
    assert isinstance(small.ask("what is the opposite of above?", max_new_tokens=4), str)


def test_the_velocity_parts_stay_as_they_are() -> None:
    network = JanusFlow.from_pretrained("tiny", device="cpu", quantize="int4").network
    for part in (network.generation_encoder, network.generation_decoder, network.get_input_embeddings()):
        assert all(type(parameter) is nn.Parameter for parameter in part.parameters())


def test_a_janus_in_eight_bits() -> None:
    folder = GOLDEN / "janus-small-a"
    full: Any = JanusFlow.from_pretrained(folder, device="cpu")
    small: Any = JanusFlow.from_pretrained(folder, device="cpu", quantize="int8")
    ids, mask = full.processor.encode_prompts(["a red circle"], side="left", keep_last=True)
    found, expected = (model.network.next_logits(model.network.read(ids, mask)[0]) for model in (small, full))
    assert 0 < distance(found, expected) < 0.05
    codes = small.generate("a red circle", seed=0, output_type="latent", progress=False)
    assert codes.shape == (1, small.network.image_tokens)


def test_quantized_weights_are_not_saved(tmp_path: Path) -> None:
    model = JanusFlow.from_pretrained("tiny", device="cpu", quantize="int8")
    with pytest.raises(ValueError, match="quantized"):
        model.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_with_offload_they_draw_and_answer(kind: str) -> None:
    model = JanusFlow.from_pretrained("tiny", device="cpu", quantize=kind)
    before = model.generate("a star", seed=0, num_inference_steps=1, progress=False)[0]
    model.offload("cpu")
    after = model.generate("a star", seed=0, num_inference_steps=1, progress=False)[0]
    assert before.tobytes() == after.tobytes() and isinstance(model.ask("what?", max_new_tokens=2), str)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="quantize is 'int2'"):
        JanusFlow.from_pretrained("tiny", device="cpu", quantize="int2")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ValueError, match="needs torchao"):
        JanusFlow.from_pretrained("tiny", device="cpu", quantize="int8")
    assert torch.get_default_dtype() == torch.float32
