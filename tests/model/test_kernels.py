"""Compiled small operations give what plain ones give; when they are compiled, and what is said if they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from janusflow import JanusFlow
from janusflow.model import kernels
from janusflow.model.kernels import PLAIN, compile_network, compiled, kernels_of, missing_compiler, product
from tests.conftest import TOLERANCE, Golden
from tests.model.test_parity import trajectory_error

needs_compiler = pytest.mark.skipif(missing_compiler(torch.device("cpu")) is not None, reason="no C++ compiler")


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, up, weight, heads = (torch.randn(size, generator=generator) for size in ((5, 32), (5, 32), (32,), (5, 4, 8)))
    return x.to(dtype), up.to(dtype), weight.to(dtype), heads.to(dtype)


def test_the_norm_rounds_as_that_of_transformers() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, _, weight, _ = inputs(dtype)
        expected = LlamaRMSNorm(32, 1e-5)
        expected.weight.data = weight
        for norm in (PLAIN.norm, kernels._norm):
            torch.testing.assert_close(norm(x, weight, 1e-5), expected(x).detach())


@needs_compiler
@torch.inference_mode()
def test_compiled_functions_equal_plain_ones() -> None:
    made = compiled(False)
    x, up, weight, heads = inputs(torch.float32)
    cos, sin = torch.rand(5, 1, 8), torch.rand(5, 1, 8)
    for rows in (5, 3):
        torch.testing.assert_close(made.norm(x[:rows], weight, 1e-5), PLAIN.norm(x[:rows], weight, 1e-5))
        rotated = PLAIN.rotate(heads[:rows], cos[:rows], sin[:rows])
        torch.testing.assert_close(made.rotate(heads[:rows], cos[:rows], sin[:rows]), rotated)
        torch.testing.assert_close(made.gate(x[:rows], up[:rows]), PLAIN.gate(x[:rows].clone(), up[:rows]))


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_products_of_a_few_rows_are_those_of_the_layer(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Linear(24, 40, bias=bias)
    for rows in (1, 3, 8, 64, 65):
        x = torch.randn(rows, 24)
        torch.testing.assert_close(product(layer, x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    calls: list[int] = []
    monkeypatch.setattr(layer, "forward", lambda x: calls.append(len(x)) or x)
    for rows in (1, 3, 64, 65):
        product(layer, torch.randn(rows, 24))
    assert calls == ([1, 65] if kernels.ONEDNN else [1, 3, 64, 65])
    assert product(layer, x.bfloat16()[:4]).shape == (4, 24), "only float32 takes the other kernel"


@needs_compiler
def test_golden_cases_hold_compiled(golden: Golden) -> None:
    model = JanusFlow.from_pretrained(golden.folder, device="cpu", compile="on")
    assert kernels_of(model.network.language_model) is compiled(False)
    for case in range(len(golden.cases["t2i"])):
        assert trajectory_error(model, golden, case) <= TOLERANCE
    length = golden.tensors["und.greedy_tokens"].shape[1]
    assert model.chat_batch(golden.conversations[:2], max_new_tokens=length) == golden.cases["greedy_text"]


def test_auto_leaves_a_small_network_as_it_is(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = JanusFlow.from_pretrained(small_folder, device="cpu", compile="auto").network
    assert kernels_of(network.language_model) is PLAIN
    monkeypatch.setattr(kernels, "LARGE", 1000)
    monkeypatch.setattr(kernels, "missing_compiler", lambda device: "no C++ compiler was found (g++)")
    assert not compile_network(network, "auto")
    monkeypatch.setattr(kernels, "missing_compiler", lambda device: None)
    assert compile_network(network, "auto") and kernels_of(network.language_model) is compiled(False)


def test_a_missing_compiler_is_one_sentence(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="^compile is 'on', and no C\\+\\+ compiler was found .*; install it, or give"):
        JanusFlow.from_pretrained(small_folder, device="cpu", compile="on")
    assert JanusFlow.from_pretrained(small_folder, device="cpu", compile="auto").network is not None
    with pytest.raises(ValueError, match="compile is 'always'; expected off, auto, on"):
        JanusFlow.from_pretrained(small_folder, device="cpu", compile="always")
