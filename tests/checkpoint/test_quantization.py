"""Weights in 8 and 4 bits: smaller, close to the full ones, and only where they may be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from janusflow import JanusFlow
from janusflow.checkpoint.quantization import check, weight_bytes
from janusflow.checkpoint.quantized_linear import Int4Linear, Int8Linear, QuantizedLinear, replace_linears
from tests.conftest import GOLDEN


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("kind", "share", "far"), [("int8", 0.26, 0.03), ("int4", 0.17, 0.1)])
def test_the_shipped_model_in_fewer_bits(tiny_model: JanusFlow, kind: str, share: float, far: float) -> None:
    small = JanusFlow.from_pretrained("tiny", device="cpu", quantize=kind)
    assert small.network.dtype == torch.float32
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
    assert 0 < distance(found, expected) < 0.08
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


def layer(rows: int, columns: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias)


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "far"), [(Int8Linear, 0.03), (Int4Linear, 0.1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_gives_nearly_what_the_full_one_gives(
    kind: type[QuantizedLinear], far: float, bias: bool, dtype: torch.dtype
) -> None:
    full = layer(48, 64, bias=bias).to(dtype)
    small, x = kind(full), torch.randn(2, 5, 64).to(dtype)
    found = small(x)
    assert found.shape == (2, 5, 48) and found.dtype == dtype
    assert distance(found.float(), full(x).float()) < far
    assert small.weight_bytes < (0.3 if kind is Int8Linear else 0.2) * 48 * 64 * 4


@torch.inference_mode()
def test_a_large_token_does_not_coarsen_the_others() -> None:
    full = layer(48, 64, bias=False)
    x = torch.randn(6, 64)
    x[0] *= 1000
    assert distance(Int8Linear(full)(x)[1:], full(x)[1:]) < 0.03
    zeros = torch.zeros(1, 64)
    assert not Int8Linear(full)(zeros).any()
    nothing = nn.Linear(64, 32)
    nothing.weight.zero_()
    assert torch.equal(Int8Linear(nothing)(x), nothing(x)) and distance(Int4Linear(nothing)(x), nothing(x)) < 0.01


@torch.inference_mode()
def test_many_large_products_do_not_saturate() -> None:
    full = nn.Linear(512, 16, bias=False)
    full.weight.fill_(0.5)
    x = torch.ones(3, 512)
    assert distance(Int8Linear(full)(x), full(x)) < 0.02


def test_sizes_that_four_bits_do_not_fit_get_eight() -> None:
    with pytest.raises(ValueError, match=r"\(48, 60\)"):
        Int4Linear(layer(48, 60))
    blocks = nn.Sequential(layer(48, 64), nn.Sequential(layer(47, 64), layer(48, 60)))
    replace_linears(blocks, 4)
    assert [type(part) for part in blocks.modules() if isinstance(part, QuantizedLinear)] == [
        Int4Linear,
        Int8Linear,
        Int8Linear,
    ]


def test_they_stay_on_the_cpu() -> None:
    with pytest.raises(ValueError, match="stay there"):
        Int8Linear(layer(48, 64))._apply(lambda x: x.to("meta") if x.numel() else _Elsewhere())


class _Elsewhere:
    device = torch.device("cuda")


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="quantize is 'int2'"):
        JanusFlow.from_pretrained("tiny", device="cpu", quantize="int2")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ValueError, match="needs torchao"):
        check("int8", torch.device("cuda"))
